import SwaggerParser from '@apidevtools/swagger-parser'
import type { Faults } from './fault.ts'
import type { Located } from './source.ts'

/** The part of Ajv's error objects that is used here. */
interface SchemaError {
  instancePath: string
  keyword: string
  message?: string
  params: Record<string, unknown>
}

/** One broken thing is often reported once per alternative that it might have been. */
const shownAtMost = 20

/**
 * Holds a document against the JSON Schema that the OpenAPI Initiative publishes for its version.
 *
 * Without dereferencing: schemas may be circular, and a document whose schemas share each other grows beyond all
 * bounds once every reference is replaced. What decides about requests has been followed already and comes as `resolved`.
 */
export async function validate (root: Located, resolved: { paths: object, securitySchemes: object }, faults: Faults): Promise<void> {
  const document = root.value as { components?: object }
  const components = document.components === undefined ? {} : { components: { ...document.components, securitySchemes: resolved.securitySchemes } }
  // A copy, because the parser works on what it is given.
  const copy = structuredClone({ ...document, paths: resolved.paths, ...components })
  try {
    await SwaggerParser.validate(copy as SwaggerParser['api'], {
      resolve: { external: false, file: false, http: false },
      dereference: { circular: 'ignore', excludedPathMatcher: () => true }
    })
  } catch (error) {
    const details = (error as { details?: SchemaError[] }).details
    if (details === undefined) {
      faults.add(root, `is not valid OpenAPI: ${(error as Error).message.replaceAll('\n', ' ')} Correct the document.`)
      return
    }
    const told = tellingErrors(details)
    for (const { instancePath, message, params } of told.slice(0, shownAtMost)) {
      const path = instancePath.split('/').slice(1).map(key => key.replaceAll('~1', '/').replaceAll('~0', '~'))
      const which = params['additionalProperty'] ?? params['unevaluatedProperty'] ?? (params['allowedValues'] as unknown[] | undefined)?.join(', ')
      faults.add({ ...root, path }, `${message ?? 'is not valid'}${which === undefined ? '' : ` (${String(which)})`}. Correct it as the OpenAPI specification says.`)
    }
    if (told.length > shownAtMost) faults.add(root, `is not valid OpenAPI in ${told.length - shownAtMost} more places. Correct these first.`)
  }
}

/**
 * Leaves out what only says that something deeper is wrong: the branches of `oneOf`, and 3.1's `unevaluatedProperties`
 * of every object around the fault.
 */
function tellingErrors (errors: SchemaError[]): SchemaError[] {
  const isEcho = ({ keyword, params }: SchemaError) => ['oneOf', 'anyOf', 'if', 'not', 'unevaluatedProperties'].includes(keyword) || params['missingProperty'] === '$ref'
  return errors.filter((error, index) => {
    const others = errors.filter((other, at) => at !== index && other.instancePath.startsWith(error.instancePath))
    return !isEcho(error) || !others.some(other => !isEcho(other) || other.instancePath.length > error.instancePath.length)
  })
}
