import type { Api, Cors } from './catalogue.ts'
import { quote, type Faults } from './fault.ts'
import { refuseUnknown } from './fields.ts'
import { child, isObject, items, type Located } from './source.ts'

const example = 'cors: { origins: [https://app.example.org] }'

/** RFC 9110 section 5.1: a field name is a token. */
const token = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Browsers cap it: Chromium at two hours, Firefox at a day. */
const longestSeconds = 86_400

/** An API's `cors`: `forward` (the default), or which origins' pages may call it. */
export function readCors (at: Located, faults: Faults): Api['cors'] {
  if (at.value === undefined || at.value === 'forward') return 'forward'
  const cors: Cors = { origins: [], headers: [], exposedHeaders: [], maxAgeSeconds: 600 }
  if (!isObject(at.value)) {
    faults.add(at, `must be "forward", or name origins, not ${quote(at.value)}. Write for example "${example}".`)
    return cors
  }
  refuseUnknown(at, Object.keys(cors), 'a setting of cors', faults)
  cors.origins = readList(child(at, 'origins'), faults, isOrigin, 'is no origin: write scheme, host and port as a browser does, such as https://app.example.org, in lower case and without a path')
  if (cors.origins.length === 0) faults.add(at, `names no origin. Write for example "${example}", or "cors: forward".`)
  if (cors.origins.length > 1 && cors.origins.includes('*')) faults.add(child(at, 'origins'), 'has "*" beside others. Leave it alone for all origins, or leave it out.')
  cors.headers = readList(child(at, 'headers'), faults, isToken, 'is no name of a header')
  cors.exposedHeaders = readList(child(at, 'exposedHeaders'), faults, isToken, 'is no name of a header')
  const age = child(at, 'maxAgeSeconds')
  if (age.value !== undefined) {
    if (typeof age.value === 'number' && Number.isInteger(age.value) && age.value >= 0 && age.value <= longestSeconds) cors.maxAgeSeconds = age.value
    else faults.add(age, `must be a whole number of seconds from 0 to ${longestSeconds}, not ${quote(age.value)}.`)
  }
  return cors
}

function readList (at: Located, faults: Faults, accepts: (text: string) => boolean, fault: string): string[] {
  if (at.value === undefined) return []
  if (!Array.isArray(at.value)) {
    faults.add(at, `must be a list, not ${quote(at.value)}. Write for example "${example}".`)
    return []
  }
  return items(at).flatMap(item => {
    if (typeof item.value === 'string' && accepts(item.value)) return [item.value]
    faults.add(item, `${quote(item.value)} ${fault}.`)
    return []
  })
}

/** As a browser writes it (RFC 6454 section 6.1), because it is compared to the letter. */
function isOrigin (text: string): boolean {
  return text === '*' || (/^https?:/.test(text) && URL.canParse(text) && new URL(text).origin === text)
}

function isToken (text: string): boolean {
  return token.test(text)
}
