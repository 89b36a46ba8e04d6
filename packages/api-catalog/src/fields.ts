import { quote, suggest, type Faults } from './fault.ts'
import { child, isObject, type Located } from './source.ts'

/** The member `key` as one of `choices`; a wrong or missing one is a fault unless there is a default. */
export function readChoice<T extends string> (parent: Located, key: string, choices: readonly T[], otherwise: T, faults: Faults): T {
  const at = child(parent, key)
  if (at.value === undefined) return otherwise
  if (choices.includes(at.value as T)) return at.value as T
  faults.add(at, `must be ${choices.map(quote).join(' or ')}, not ${quote(at.value)}.`)
  return otherwise
}

/** Every key of a located object must be in `known`; the fault names the nearest. */
export function refuseUnknown (at: Located, known: readonly string[], what: string, faults: Faults): void {
  if (!isObject(at.value)) return
  for (const key of Object.keys(at.value)) {
    if (!known.includes(key)) faults.add(child(at, key), `is not ${what}; ${suggest(key, known)}`)
  }
}

/** A text that is not empty, or a fault that shows `example`. */
export function readText (at: Located, example: string, faults: Faults): string | undefined {
  if (typeof at.value === 'string' && at.value.trim() !== '') return at.value
  faults.add(at, at.value === undefined ? `is missing. Write for example "${example}".` : `must be a text, not ${quote(at.value)}. Write for example "${example}".`)
}

/** The name of an API: it becomes part of Redis keys and metric labels, so it is kept plain. */
export function readName (at: Located, faults: Faults): string | undefined {
  const name = readText(at, 'name: forms', faults)
  if (name === undefined || /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name)) return name
  faults.add(at, `${quote(name)} cannot be a name: take at most 64 letters, digits, ".", "_" or "-", a letter or digit first.`)
}

/** The part of the public path before the document's own paths; `/` comes back as the empty text. */
export function readPrefix (at: Located, faults: Faults): string | undefined {
  const prefix = readText(at, 'prefix: /app/api/v1', faults)
  if (prefix === undefined) return undefined
  if (prefix === '/') return ''
  const segments = prefix.split('/').slice(1)
  // Only characters that have one spelling: a prefix with an encoded form could be met in another.
  const plain = prefix.startsWith('/') && segments.every(segment => /^[A-Za-z0-9._~-]+$/.test(segment) && !/^\.{1,2}$/.test(segment))
  if (!plain) {
    faults.add(at, `${quote(prefix)} cannot be a prefix: begin with "/", end without, and use letters, digits, ".", "_", "~" and "-" between. Write for example "prefix: /app/api/v1".`)
    return undefined
  }
  if (segments[0] === '.keygate') {
    faults.add(at, 'begins with /.keygate, which the gateway keeps for itself. Take another.')
    return undefined
  }
  if (prefix === '/livez' || prefix === '/readyz') {
    faults.add(at, `is ${prefix}, where the gateway tells of its health. Take another.`)
    return undefined
  }
  return prefix
}

/** An absolute http(s) URL without the parts that would be lost or leaked when paths are joined to it; no trailing slash. */
export function readUrl (at: Located, example: string, faults: Faults): string | undefined {
  const text = readText(at, example, faults)
  if (text === undefined) return undefined
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:\/\//i.test(text)) {
    faults.add(at, `${quote(text)} is not an http or https URL. Write for example "${example}".`)
    return undefined
  }
  const unwanted = [
    { found: url.username !== '' || url.password !== '', what: 'a user name or password' },
    { found: text.includes('?'), what: 'a query' },
    { found: text.includes('#'), what: 'a fragment' }
  ].filter(({ found }) => found).map(({ what }) => what)
  if (unwanted.length > 0) {
    // The URL is not quoted: this very fault says that it may hold a password.
    faults.add(at, `has ${unwanted.join(' and ')}. Leave only scheme, host, port and path, as in "${example}".`)
    return undefined
  }
  return url.href.replace(/\/+$/, '')
}
