import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import type { Document, Operation } from './operations.ts'
import type { Answer } from './request.ts'

export type Judge = (operation: Operation, answer: Answer) => string[]

/** What PostgreSQL and its drivers say, and no client may read. */
const voices = /violates|syntax error at|invalid byte sequence|invalid input (syntax|value)|out of range for type|unsupported Unicode|SQLSTATE|PostgresError|DrizzleQuery|Failed query|relation "|column "|\bpg_(?!sleep)\w+\(|node_modules|\.ts:\d+/i

/** Refusals of 400 and 422 that no single field is at fault for: the body as a whole, the address, how many there are already. */
const ofNoField = new Set(['invalid_json_body', 'bad_url', 'too_many_roles'])

/** Holds each answer against the document; what does not fit comes back as sentences. */
export function createJudge (document: Document): Judge {
  const ajv = new Ajv2020({ strict: false, allErrors: false, validateFormats: true })
  ;(formats as unknown as (ajv: Ajv2020) => void)(ajv)
  ajv.addSchema(document, 'document')
  const validators = new Map<string, ValidateFunction>()
  const validatorOf = (operation: Operation, status: string, type: string): ValidateFunction => {
    const steps = ['paths', operation.path, operation.method.toLowerCase(), 'responses', status, 'content', type, 'schema']
    const ref = `document#/${steps.map(step => encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`
    const validate = validators.get(ref) ?? ajv.compile({ $ref: ref })
    validators.set(ref, validate)
    return validate
  }

  return (operation, { status, headers, text }) => {
    const documented = operation.responses[String(status)]
    if (status >= 500) return [`answered ${status}`]
    if (documented === undefined) return [`answered ${status}, which is not documented`]
    const faults: string[] = []
    for (const [name, header] of Object.entries(documented.headers)) {
      if (header.required === true && headers[name.toLowerCase()] === undefined) faults.push(`lacks the header ${name}`)
    }
    const type = String(headers['content-type'] ?? '').split(';', 1)[0]?.trim() ?? ''
    if (documented.content.length === 0) return text === '' ? faults : [...faults, 'has a body, and none is documented']
    if (!documented.content.includes(type)) return [...faults, `is ${type === '' ? 'of no type' : type}, documented is ${documented.content.join(', ')}`]
    if (!type.endsWith('json') || type.endsWith('ndjson')) return faults
    const body = parse(text)
    const validate = validatorOf(operation, String(status), type)
    if (!validate(body)) faults.push(`does not fit: ${ajv.errorsText(validate.errors)}`)
    if (typeof body === 'object' && body !== null && 'secret' in body && !/no-store/.test(String(headers['cache-control']))) faults.push('carries a secret and may be stored')
    if (status >= 400 && (body as { status?: unknown } | undefined)?.status !== status) faults.push('tells another status in its body')
    if ([400, 422].includes(status) && !ofNoField.has(codeOf(body)) && !namesField(body)) faults.push('names no field')
    if (status >= 400 && voices.test(text)) faults.push('speaks with the words of the database or of the code')
    return faults
  }
}

function codeOf (body: unknown): string {
  return String((body as { code?: unknown } | undefined)?.code)
}

/** At least one field or header, each with its reason. */
function namesField (body: unknown): boolean {
  const { errors } = body as { errors?: Array<{ pointer: string, message: string }> }
  return errors !== undefined && errors.length > 0 && errors.every(({ message }) => message !== '')
}

function parse (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
