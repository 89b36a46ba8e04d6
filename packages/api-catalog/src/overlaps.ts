import type { Operation } from './catalogue.ts'
import { quote, type Faults } from './fault.ts'
import type { ApiSettings } from './settings.ts'
import { child } from './source.ts'
import { canReach } from './templates.ts'

/** What the gateway itself answers below each prefix. */
export const ownPaths: readonly string[] = ['/openapi.json', '/docs']

/**
 * Every request must belong to one API.
 *
 * One prefix inside another is fine (the longer one wins) as long as the outer API has nothing of its own there.
 *
 * @param operations per API, in the same order; empty for one whose document has a fault.
 */
export function refuseOverlaps (apis: readonly ApiSettings[], operations: ReadonlyArray<readonly Operation[]>, faults: Faults): void {
  const names = new Set<string>()
  for (const { name, at } of apis) {
    if (name === undefined) continue
    if (names.has(name)) faults.add(child(at, 'name'), `${quote(name)} is used twice. Give each API its own name.`)
    names.add(name)
  }
  for (const [i, outer] of apis.entries()) {
    for (const [j, inner] of apis.entries()) {
      if (i === j || outer.prefix === undefined || inner.prefix === undefined) continue
      const at = child(inner.at, 'prefix')
      if (outer.prefix === inner.prefix) {
        if (i < j) faults.add(at, `${quote(inner.prefix)} is also the prefix of ${quote(outer.name)}. Give each API its own.`)
        continue
      }
      if (!inner.prefix.startsWith(`${outer.prefix}/`)) continue
      const rest = inner.prefix.slice(outer.prefix.length)
      const paths = [...(operations[i] ?? []).map(({ path }) => path), ...ownPaths]
      const reaching = paths.find(path => canReach(path, rest))
      const outerName = `${quote(outer.name)} (${outer.prefix === '' ? '/' : outer.prefix})`
      if (outer.unlisted === 'forward') {
        faults.add(at, `lies inside ${outerName}, which forwards what it does not list. Set "unlisted: deny" there, or separate the prefixes.`)
      } else if (reaching !== undefined) {
        faults.add(at, `lies inside ${outerName}, whose path ${quote(reaching)} reaches into it. Separate the prefixes.`)
      }
    }
  }
}
