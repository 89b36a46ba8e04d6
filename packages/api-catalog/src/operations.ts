import type { Operation } from './catalogue.ts'
import type { ListedOperation, OpenApiDocument } from './document.ts'
import { quote, suggest, type Faults } from './fault.ts'
import { ownPaths } from './overlaps.ts'
import { scopesOf } from './scopes.ts'
import { securityOf } from './security.ts'
import type { ApiSettings } from './settings.ts'
import { child } from './source.ts'
import { faultsOfTemplate, parametersOf, shapeOf } from './templates.ts'

/** The rows of the table: every operation that the document lists, with what `apis.yaml` adds. */
export function readOperations (settings: ApiSettings, document: OpenApiDocument, faults: Faults): Operation[] {
  const operations = document.listed.map((listed): Operation => {
    checkPath(listed, settings.projectParameter, faults)
    refuseReserved(listed, settings, faults)
    const id = child(listed.at, 'operationId').value
    return {
      id: typeof id === 'string' && id.trim() !== '' ? id : nameOf(listed),
      method: listed.method,
      path: listed.template,
      ...securityOf(listed, document, faults),
      scopes: scopesOf(listed, settings.scopes, faults),
      policies: []
    }
  })
  refuseTwins(document.listed, operations, faults)
  addPolicies(settings, operations, faults)
  return operations
}

function checkPath ({ template, at, parameters, pathItem }: ListedOperation, projectParameter: string | null, faults: Faults): void {
  for (const fault of faultsOfTemplate(template)) faults.add(pathItem, `${quote(template)} ${fault}`)
  const names = parametersOf(template)
  const declared = parameters.filter(parameter => child(parameter, 'in').value === 'path')
  for (const parameter of declared) {
    const name = child(parameter, 'name')
    if (typeof name.value === 'string' && !names.includes(name.value)) {
      faults.add(name, `${quote(name.value)} is no parameter of ${template}; ${suggest(name.value, names)}`)
    }
  }
  for (const name of names) {
    if (!declared.some(parameter => child(parameter, 'name').value === name)) {
      faults.add(at, `does not describe the parameter ${quote(name)} of its path. Add { name: ${name}, in: path, required: true, schema: { type: string } } to "parameters".`)
    }
    // Left alone, this path would not be held to the key's project.
    if (projectParameter !== null && name !== projectParameter && plain(name) === plain(projectParameter)) {
      faults.add(pathItem, `spells the project's parameter ${quote(name)}, not ${quote(projectParameter)}. Spell it alike, or it would be open to every project.`)
    }
  }
}

/** What the gateway answers itself would hide an operation there, or the other way round. */
function refuseReserved ({ method, template, at, pathItem }: ListedOperation, { prefix = '' }: ApiSettings, faults: Faults): void {
  const path = shapeOf(prefix + template)
  if (path === '/livez' || path === '/readyz' || path === '/.keygate' || path.startsWith('/.keygate/')) {
    faults.add(pathItem, `${quote(path)} is the gateway's own. Give the API another prefix, or the path another name.`)
  } else if (ownPaths.some(own => path === prefix + own) && (method === 'GET' || method === 'HEAD')) {
    faults.add(at, `${quote(path)} is where the gateway publishes what it enforces. Give the path another name, or leave it out of the document.`)
  }
}

function refuseTwins (listed: readonly ListedOperation[], operations: readonly Operation[], faults: Faults): void {
  const paths = new Map<string, string>()
  const ids = new Map<string, string>()
  for (const [index, operation] of operations.entries()) {
    const at = listed[index]!.at
    const shape = `${operation.method} ${shapeOf(operation.path)}`
    const twin = paths.get(shape)
    if (twin !== undefined) faults.add(at, `matches the same requests as ${quote(twin)}. Keep one of the two paths.`)
    const namesake = ids.get(operation.id)
    if (namesake !== undefined) faults.add(child(at, 'operationId'), `${quote(operation.id)} also names ${quote(namesake)}. Give each operation its own operationId.`)
    paths.set(shape, operation.path)
    ids.set(operation.id, `${operation.method} ${operation.path}`)
  }
}

function addPolicies (settings: ApiSettings, operations: readonly Operation[], faults: Faults): void {
  const general = new Set(settings.policies.map(policy => policy.name))
  const taken = new Map<Operation, string>()
  for (const { at, key, policies } of settings.operations) {
    const operation = operations.find(({ id, method, path }) => id === key || `${method} ${path}` === key)
    if (operation === undefined) {
      faults.add(at, `is no operation of the document; ${suggest(key, operations.flatMap(({ id, method, path }) => [id, `${method} ${path}`]))}`)
      continue
    }
    const earlier = taken.get(operation)
    if (earlier !== undefined) faults.add(at, `is the same operation as ${quote(earlier)}. Join the two entries.`)
    taken.set(operation, key)
    for (const [index, { name }] of policies.entries()) {
      // Both lists count the same request, and an answer says by name which of them refused it.
      if (general.has(name)) faults.add(child(child(child(at, 'policies'), index), 'name'), `${quote(name)} is also a policy of the whole API. Take another name.`)
    }
    operation.policies = policies
  }
}

function nameOf ({ method, template }: ListedOperation): string {
  return `${method} ${template}`
}

function plain (name: string): string {
  return name.toLowerCase().replace(/[-_.]/g, '')
}
