import type { Api, Catalogue, Operation, Policy, Requirement } from './catalogue.ts'
import { forwardsBearerOf, policiesOf, policiesWithoutKey } from './publish.ts'

/** Column widths, so that a row with its gaps is at most 120 wide; a word that is longer pushes what follows to the next line. */
const widths = [7, 42, 18, 24, 21]
const gap = '  '

/**
 * The table that a gateway enforces, for people: method, path, scopes, who may call, and which policies count a call. Lines are at most 120
 * characters wide, unless a path or name alone is longer than its column.
 */
export function printRoutes ({ apis }: Catalogue): string {
  return apis.map(printApi).join('\n')
}

function printApi (api: Api): string {
  const rows = api.operations.map(operation => [operation.method, api.prefix + operation.path, scopesOf(api, operation), whoMayCall(api, operation), countedBy(api, operation)])
  for (const path of ['/openapi.json', '/docs']) rows.push(['GET', api.prefix + path, '', 'anyone: the gateway answers', listOf(api.anonymousPolicies)])
  if (api.unlisted === 'forward') rows.push(['any', `${api.prefix}/*`, '', 'anyone, unchecked: not listed', listOf(api.anonymousPolicies)])
  const title = `${api.name}: ${api.prefix === '' ? '/' : api.prefix} -> ${api.upstream}`
  return [title, ...[['METHOD', 'PATH', 'SCOPES', 'WHO MAY CALL', 'POLICIES'], ...rows].flatMap(printRow)].join('\n') + '\n'
}

/** Who gets in, in a few words: with a key and how it travels, everybody, or no key. */
export function whoMayCall (api: Api, operation: Operation): string {
  if (operation.method === 'TRACE') return 'nobody: TRACE is refused'
  if (operation.access === 'public') return 'anyone'
  const others = [...(operation.access === 'key' && operation.anonymous ? ['anyone'] : []), ...(forwardsBearerOf(api, operation) ? ['Bearer, checked by the API'] : [])]
  if (operation.access === 'other') return others.length === 0 ? 'no key' : `no key; ${others.join('; ')}`
  return [`key: ${operation.requirements.map(wayOf).join(' or ')}`, ...others].join('; or ')
}

function wayOf ({ carrier, alsoBearer }: Requirement): string {
  const way = carrier.kind === 'basic' ? 'Basic' : carrier.name
  return alsoBearer ? `${way} with Bearer` : way
}

function scopesOf ({ optInScopes }: Api, { scopes }: Operation): string {
  return scopes.map(scope => optInScopes.includes(scope) ? `${scope} (opt-in)` : scope).join(', ')
}

/** The policies of calls with a key, and of those without one where both pass. */
function countedBy (api: Api, operation: Operation): string {
  const [own, withoutKey] = [listOf(policiesOf(api, operation)), listOf(policiesWithoutKey(api, operation))]
  return withoutKey === '' ? own : `${own}; without a key: ${withoutKey}`
}

function listOf (policies: readonly Policy[]): string {
  return policies.map(textOf).join(', ')
}

/** `default 120/60s`, and what is not the common case behind it. */
function textOf ({ name, limit, windowSeconds, algorithm, partition }: Policy): string {
  return [`${name} ${limit}/${windowSeconds}s`, ...(algorithm === 'fixed' ? ['fixed'] : []), ...(partition === 'key' ? [] : [`by ${partition}`])].join(' ')
}

/** A row as lines: each cell is broken at its spaces, and the columns stay where they are. */
function printRow (cells: string[]): string[] {
  const columns = cells.map((cell, i) => broken(plain(cell), widths[i] as number))
  const lines: string[] = []
  let from = columns.map(() => 0)
  while (from.some((at, i) => at < (columns[i] as string[]).length)) {
    let line = ''
    let isFull = false
    from = from.map((at, i) => {
      const words = columns[i]?.[at]
      if (isFull || words === undefined) {
        if (!isFull) line += ' '.repeat(widths[i] as number) + gap
        return at
      }
      line += words.padEnd(widths[i] as number) + gap
      isFull = words.length > (widths[i] as number)
      return at + 1
    })
    lines.push(line.trimEnd())
  }
  return lines
}

/** A document's texts may hold what a terminal takes for orders. */
function plain (text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '\ufffd')
}

function broken (text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}
