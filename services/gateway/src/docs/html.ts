/** A piece of HTML: what is in it may stand in a page as it is. */
export class Html {
  readonly text: string
  constructor (text: string) {
    this.text = text
  }
}

type Part = string | number | Html | null | Part[]

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', '\'': '&#39;' }

/** Makes a page's text: whatever is put in is escaped, in an element and in a quoted attribute alike, unless it is `Html` itself. */
export function html (texts: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(texts.reduce((page, text, i) => page + textOf(parts[i - 1] ?? null) + text))
}

function textOf (part: Part): string {
  if (part === null) return ''
  if (part instanceof Html) return part.text
  if (Array.isArray(part)) return part.map(textOf).join('')
  return escapeText(String(part))
}

/** Also without control characters, which HTML does not allow (WHATWG HTML section 13.1.4). */
function escapeText (text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, '\ufffd').replace(/[&<>"']/g, character => entities[character] as string)
}
