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
  const segments = template.split('/').slice(1)
  if (segments.slice(0, -1).includes('') || segments.some(segment => /^\.{1,2}$/.test(segment))) {
    faults.push('has an empty, "." or ".." segment, and no request keeps those. Write the path without it.')
  }
  return faults
}

/** Equal for templates that match the same requests: OpenAPI calls `/forms/{a}` and `/forms/{b}` identical. */
export function shapeOf (template: string): string {
  return template.replace(/\{[^{}]*\}/g, '{}')
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
