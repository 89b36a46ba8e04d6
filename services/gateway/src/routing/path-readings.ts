/** Stands for a parameter while its template is folded; from Unicode's private use area, so that folding leaves it as it is. */
export const parameter = '\ue000'

/** Escapes of escapes of escapes are looked into, and what is escaped once more is not forwarded. */
const longestNesting = 3

/** Where an upstream that decodes too early ends the path. */
const pathEnd = /[\0?#]/

/** A path that folds to itself, but for its slashes. */
const plain = /^[a-z0-9/_~:@,=-]*$/

/**
 * The readings of a path by an upstream that is lax in all that is known to happen: case, escapes (also of escapes), compatible characters,
 * `;` parameters, `+` for a space, white space, control characters and dots at a segment's end, slashes twice or at the end, backslashes, NUL,
 * `?` and `#` as the end, a format behind the last dot.
 */
export function fold (path: string): string[] {
  return read(path).readings.map(reading => `/${reading.join('/')}`)
}

export interface Reading {
  /** Segments. The first one leaves out nothing that may be a value. */
  readings: [string[], ...string[][]]
  /** More escapes in one another than are looked into. */
  isEscaped: boolean
  /** Or it has what may be a way up, or an end, to somebody. */
  isUnclear: boolean
}

/** How a path may be read. */
export function read (path: string): Reading {
  if (plain.test(path)) return { readings: [path.split('/').filter(segment => segment !== '')], isEscaped: false, isUnclear: false }
  const decoded = decode(path).normalize('NFKC').toUpperCase().toLowerCase().replaceAll('+', ' ')
  const end = decoded.search(pathEnd)
  const isEscaped = /%[0-9a-f]{2}/.test(decoded)
  let isUnclear = isEscaped || decoded.includes('\0')
  const segments: string[] = []
  for (const written of (end === -1 ? decoded : decoded.slice(0, end)).split(/[/\\]/)) {
    const semicolon = written.indexOf(';')
    const bare = semicolon === -1 ? written : written.slice(0, semicolon)
    const kept = withoutEnd(bare)
    const dots = kept === '' ? bare.split('.').length - 1 : 0
    if (dots > 1) isUnclear = true
    if (dots === 2) segments.pop()
    else if (bare !== '') segments.push(kept || bare)
  }
  // A segment of nothing but spaces or dots may be a parameter's value, or nothing at all.
  const full = segments.filter(segment => withoutEnd(segment) !== '')
  const readings: [string[], ...string[][]] = [segments]
  for (const reading of [withoutFormat(segments), ...(full.length === segments.length ? [] : [full, withoutFormat(full)])]) if (!readings.includes(reading)) readings.push(reading)
  return { readings, isEscaped, isUnclear }
}

/** What is no UTF-8 becomes U+FFFD, as most readers have it. Escaped percent signs go first and at once, however many are in one another. */
function decode (path: string): string {
  let decoded = path
  for (let i = 0; i < longestNesting && decoded.includes('%'); i++) {
    decoded = decoded.replace(/%(?:25)+(?=[0-9a-f]{2})/gi, '%').replace(/(?:%[0-9a-f]{2})+/gi, escapes => Buffer.from(escapes.replaceAll('%', ''), 'hex').toString('utf8'))
  }
  return decoded
}

/** A template with one character for each parameter. */
export function marked (template: string): string {
  return template.replace(/\{[^{}]*\}/g, parameter)
}

function withoutEnd (segment: string): string {
  let end = segment.length
  while (end > 0 && isBlank(segment.charCodeAt(end - 1))) end--
  return segment.slice(0, end)
}

/** A dot, white space or a control character. */
function isBlank (code: number): boolean {
  return code === 0x2e || code <= 0x20 || (code >= 0x7f && code <= 0xa0) || (code > 0xa0 && /\s/.test(String.fromCharCode(code)))
}

/** Without what stands behind the last dot; the same array, if there is none. */
export function withoutFormat (segments: string[]): string[] {
  const last = segments.at(-1) ?? ''
  const dot = last.lastIndexOf('.')
  return dot < 1 || last.includes(parameter, dot) ? segments : [...segments.slice(0, -1), last.slice(0, dot)]
}
