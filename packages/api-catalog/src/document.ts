import { bundle } from './bundle.ts'
import { quote, type Faults } from './fault.ts'
import { isReference, References } from './references.ts'
import { child, isObject, items, members, readSource, type Located } from './source.ts'
import { validate } from './validation.ts'

/** The part of an OpenAPI document that decides about requests, with its references followed. */
export interface OpenApiDocument {
  root: Located
  /** The document as one: nothing in it is in another file. */
  whole: object
  /** Method, path and body of each operation, in the document's order. */
  listed: ListedOperation[]
  /** `components.securitySchemes`, by name. */
  schemes: Map<string, Located>
}

export interface ListedOperation {
  /** Upper case. */
  method: string
  template: string
  at: Located
  pathItem: Located
  /** Path Item's and operation's parameters. */
  parameters: Located[]
}

/** OpenAPI 3.0.4 section 4.8.9, Path Item Object: the fields that are operations. */
const methods = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace']

/**
 * Reads, resolves and validates one document; undefined when nothing sensible can be said about its operations.
 *
 * @param namedBy the setting that names `location`.
 */
export async function openDocument (location: string, namedBy: Located, faults: Faults, fetchTimeoutMs?: number): Promise<OpenApiDocument | undefined> {
  const { root, faults: unparsed, unread } = await readSource(location, fetchTimeoutMs)
  faults.list.push(...unparsed)
  if (unread !== null) faults.add(namedBy, `"${location}" ${unread}`)
  if (root === null || !isOpenApi(root, faults)) return undefined

  const references = new References(root, faults)
  const schemes = await followAll(child(child(root, 'components'), 'securitySchemes'), references)
  const listed: ListedOperation[] = []
  const paths: Record<string, unknown> = {}
  for (const [template, item] of members(child(root, 'paths'))) {
    if (template.startsWith('x-')) continue
    refuseSiblings(item, faults)
    const pathItem = await references.follow(item)
    if (pathItem === undefined) continue
    const { operations, value } = await readPathItem(pathItem, template, references)
    listed.push(...operations)
    paths[template] = value
  }
  await validate(root, { paths, securitySchemes: Object.fromEntries([...schemes].map(([name, at]) => [name, at.value])) }, faults)
  return { root, listed, schemes, whole: await bundle(root, references, faults) }
}

function isOpenApi (root: Located, faults: Faults): boolean {
  const version = child(root, 'openapi')
  if (child(root, 'swagger').value !== undefined) {
    faults.add(child(root, 'swagger'), 'is Swagger 2.0. Convert the document to OpenAPI 3.0 or 3.1.')
  } else if (!isObject(root.value) || version.value === undefined) {
    faults.add(root, 'is not an OpenAPI document: "openapi" is missing. Name one of version 3.0 or 3.1.')
  } else if (typeof version.value === 'number') {
    faults.add(version, `is a number. Put it in quotes, with all three parts: "${version.value}.0".`)
  } else if (typeof version.value !== 'string' || !/^3\.[01]\.\d+$/.test(version.value)) {
    faults.add(version, `is version ${quote(version.value)}, which is not known here. Use a document of version 3.0 or 3.1.`)
  } else if (!isObject(child(root, 'paths').value) || members(child(root, 'paths')).length === 0) {
    faults.add(child(root, 'paths'), 'lists no path, so there is nothing to let in. Add the paths of the API.')
  } else {
    return true
  }
  return false
}

/** Beside a Path Item's `$ref` the meaning of operations is undefined (OpenAPI 3.0.4 section 4.8.9): they would silently not exist. */
function refuseSiblings (item: Located, faults: Faults): void {
  if (!isReference(item.value)) return
  for (const key of [...methods, 'parameters']) {
    if (key in item.value) faults.add(child(item, key), 'stands beside "$ref", where OpenAPI gives it no meaning. Move it to what the reference names.')
  }
}

async function readPathItem (pathItem: Located, template: string, references: References) {
  const shared = await followEach(child(pathItem, 'parameters'), references)
  const value: Record<string, unknown> = { ...pathItem.value as object }
  if (shared.length > 0) value['parameters'] = shared.map(parameter => parameter.value)
  const operations: ListedOperation[] = []
  for (const method of methods) {
    const at = child(pathItem, method)
    if (!isObject(at.value)) continue
    const own = await followEach(child(at, 'parameters'), references)
    if (own.length > 0) value[method] = { ...at.value, parameters: own.map(parameter => parameter.value) }
    operations.push({ method: method.toUpperCase(), template, at, pathItem, parameters: [...shared, ...own] })
  }
  // The document's own order, not that of `methods`.
  const order = Object.keys(pathItem.value ?? {})
  operations.sort((a, b) => order.indexOf(a.method.toLowerCase()) - order.indexOf(b.method.toLowerCase()))
  return { operations, value }
}

async function followAll (at: Located, references: References): Promise<Map<string, Located>> {
  const found = new Map<string, Located>()
  for (const [name, member] of members(at)) {
    const target = await references.follow(member)
    if (target !== undefined) found.set(name, target)
  }
  return found
}

async function followEach (list: Located, references: References): Promise<Located[]> {
  const found: Located[] = []
  for (const item of items(list)) {
    const target = await references.follow(item)
    if (target !== undefined) found.push(target)
  }
  return found
}
