/** Values of a path's parameters by their place in the template, decoded: `p0`, `p1`, ... */
export type PathParameters = Record<string, string | undefined>

/** A path template of OpenAPI, taken apart once: texts and the parameters between them, `texts.length === names.length + 1`. */
export interface PathTemplate {
  /** As the upstream gets them: in the document's own spelling, percent-encoded where that must be. */
  texts: string[]
  names: string[]
}

/** `/forms/{formId}/café` -> texts `/forms/`, `/caf%C3%A9` and the name `formId` (OpenAPI 3.1 section 4.8.8, Path Templating). */
export function parseTemplate (template: string): PathTemplate {
  const { texts, names } = takeApart(template)
  return { texts: texts.map(encodeText), names }
}

/**
 * The path that a template and the parameters that were checked make: what was judged is what is sent, in one spelling. A value
 * never leaves its segment, since each `/` in it is encoded.
 */
export function pathOf ({ texts, names }: PathTemplate, parameters: PathParameters): string {
  let path = texts[0] as string
  for (let i = 0; i < names.length; i++) path += encodeURIComponent(parameters[`p${i}`] ?? '') + (texts[i + 1] as string)
  return path
}

/** Where the value of a parameter stands, if the template has it. */
export function placeOf (name: string | null, { names }: PathTemplate): string | null {
  const index = name === null ? -1 : names.indexOf(name)
  return index === -1 ? null : `p${index}`
}

/**
 * As the router wants a template: `/forms/{formId}` -> `/forms/:p0`. Parameters are named by their place, because the router ends a
 * name at `-` or `.`, and because templates that match the same requests become equal so. Texts are decoded, as a request's path
 * will be.
 */
export function routerPath (prefix: string, template: string): string {
  return prefix + routerPattern(takeApart(template).texts.map(decodeURIComponent))
}

/**
 * The router's pattern for texts and the parameters between them. A parameter that shares its segment with a text has at least one character, and
 * ends where the text behind it first stands: in `{a}-{b}` at the first hyphen. There is one way to read a path, so a long one costs no more time.
 * One that is a whole segment can be empty at the end of a path; `RoutingTable` sees to that.
 */
function routerPattern (texts: readonly string[]): string {
  return texts.slice(1).reduce((pattern, text, i) => {
    const before = texts[i] as string
    const end = text.indexOf('/')
    const [tail, rest] = end === -1 ? [text, ''] : [text.slice(0, end), text.slice(end)]
    if (tail === '' && before.endsWith('/')) return `${pattern}:p${i}${escapeColons(text)}`
    const isLastOfSegment = end !== -1 || i === texts.length - 2
    const value = isLastOfSegment ? '([^/]+)' : `((?:(?!${literal(tail)})[^/])+)`
    // The router escapes "%" in a text, but has the value in front of it decoded.
    return `${pattern}:p${i}${value}${tail.includes('%') ? `:t${i}(${literal(tail)})` : escapeColons(tail)}${escapeColons(rest)}`
  }, escapeColons(texts[0] as string))
}

/** Characters that mean nothing in a path, but that `decodeURI` leaves escaped (RFC 3986 section 3.3: sub-delims, `:` and `@`). */
const needlessEscape = /%(?:24|26|2b|2c|3a|3b|3d|40)/gi

/**
 * A request's path as the router compares it: `/a%2Bb` is `/a+b`. The router decodes all other escapes itself, and a parameter's value is
 * the same in either spelling.
 */
export function comparablePath (path: string): string {
  return path.includes('%') ? path.replace(needlessEscape, decodeURIComponent) : path
}

/** A text as a regular expression for it. */
function literal (text: string): string {
  return text.replace(/[^A-Za-z0-9]/g, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

function takeApart (template: string): PathTemplate {
  const parts = template.split(/\{([^{}]*)\}/)
  return { texts: parts.filter((_, i) => i % 2 === 0), names: parts.filter((_, i) => i % 2 === 1) }
}

/** What a document escapes stays so, as its author expects it; what no path may have is escaped: `/caf%C3%A9` and `/café` become one. */
function encodeText (text: string): string {
  return text.split(/(%[0-9a-f]{2})/i).map((part, i) => i % 2 === 1 ? part.toUpperCase() : encodeURI(part)).join('')
}

/** A colon begins a parameter of the router. */
function escapeColons (text: string): string {
  return text.replaceAll(':', '::')
}
