/** The names of a template's parameters, in order: `/forms/{formId}` has `formId` (OpenAPI: Path Templating). */
export function parametersOf (template: string): string[] {
  return [...template.matchAll(/\{([^{}]*)\}/g)].map(match => match[1] ?? '')
}

/** What makes a template one that no request can be matched with in a single way; each with its remedy. */
export function faultsOfTemplate (template: string): string[] {
  const faults: string[] = []
  const names = parametersOf(template)
  const around = template.replace(/\{[^{}]*\}/g, '')
  if (!template.startsWith('/')) faults.push('does not begin with "/". Begin it with one.')
  if (/[{}]/.test(around)) faults.push('has a brace without its partner. Write parameters as "{name}".')
  if (/[?#]/.test(around)) faults.push('holds "?" or "#", which are no part of a path. Describe a query under "parameters".')
  if (names.some(name => name.trim() === '' || name.includes('/'))) faults.push('has a parameter without a proper name. Write parameters as "{name}".')
  for (const name of new Set(names.filter((name, index) => names.indexOf(name) !== index))) {
    faults.push(`has the parameter "${name}" twice. Give each its own name.`)
  }
  if (/\*|%2a/i.test(around)) faults.push('holds "*", which would look like a rule for everything below. Describe what varies as a parameter, such as "{name}".')
  const text = decoded(around)
  if (text === null) faults.push('has a "%" that begins no escape of UTF-8. Write "%25" for the character itself.')
  else if (/%(?:2f|3f|23)/i.test(around) || /[\\\0]/.test(text)) faults.push('holds an encoded "/", "?" or "#", a backslash or NUL, which the gateway lets no request bring. Choose another path.')
  if (/\}\{/.test(template)) faults.push('has two parameters without a text between them, and nobody can tell where one ends. Put a text between, such as "-".')
  const segments = template.split('/').slice(1)
  if (segments.slice(0, -1).includes('') || segments.some(segment => /^\.{1,2}$/.test(segment))) {
    faults.push('has an empty, "." or ".." segment, and no request keeps those. Write the path without it.')
  }
  return faults
}

/**
 * Equal for templates that match the same requests: OpenAPI calls `/forms/{a}` and `/forms/{b}` identical, and `/café` is written
 * `/caf%C3%A9` too (RFC 3986 section 6.2.2).
 */
export function shapeOf (template: string): string {
  return template.split(/\{[^{}]*\}/).map(text => decoded(text) ?? text).join('{}')
}

/** `null`: not an escaped text. */
function decoded (text: string): string | null {
  try {
    return decodeURIComponent(text)
  } catch {
    return null
  }
}

/** True when some path that begins with `prefix` can match the template. Both are relative to the same root. */
export function canReach (template: string, prefix: string): boolean {
  const segments = template.split('/').slice(1)
  return prefix.split('/').slice(1).every((wanted, index) => {
    const segment = segments[index]
    return segment !== undefined && new RegExp(`^${shapeOf(segment).split('{}').map(escape).join('.+')}$`).test(wanted)
  })
}

function escape (text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}
