import type { ListedOperation } from './document.ts'
import { quote, type Faults } from './fault.ts'
import type { ScopeSource } from './settings.ts'
import { child, items, type Located } from './source.ts'

/** The scopes that one operation belongs to, each once, in the document's order; none is possible. */
export function scopesOf (listed: ListedOperation, from: ScopeSource, faults: Faults): string[] {
  if (from === 'path') return firstStaticSegment(listed.template)
  if (from === 'tags') return textsOf(child(listed.at, 'tags'), faults)
  const own = child(listed.at, 'x-scope')
  return textsOf(own.value === undefined ? child(listed.pathItem, 'x-scope') : own, faults)
}

/** `/{tenant}/forms/{formId}` belongs to `forms`. */
function firstStaticSegment (template: string): string[] {
  return template.split('/').filter(segment => segment !== '' && !segment.includes('{')).slice(0, 1)
}

function textsOf (at: Located, faults: Faults): string[] {
  if (at.value === undefined) return []
  const found = Array.isArray(at.value) ? items(at) : [at]
  const texts = found.flatMap(({ value }) => typeof value === 'string' && value.trim() !== '' ? [value] : [])
  if (texts.length < found.length) faults.add(at, `must be a text or a list of texts that are not empty, not ${quote(at.value)}.`)
  return [...new Set(texts)]
}
