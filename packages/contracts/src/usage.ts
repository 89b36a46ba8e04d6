import { Type, type Static } from 'typebox'
import { count, freeText, machineText, uuid } from './bounds.ts'

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()])

/** Whole minutes since 1970, of Redis's clock at the decision. */
const minute = () => Type.Integer({ minimum: 0, maximum: 4_000_000_000 })
/** Whole hours since 1970. */
const hour = () => Type.Integer({ minimum: 0, maximum: 66_000_000 })
/** Unix milliseconds, of years that are written with four digits. */
const moment = () => count(0, { maximum: 240_000_000_000_000 })

/**
 * What one life of a gateway (a boot) has counted of one project's admissions in one hour, from the boot's first request on. A batch that
 * never arrives is found by the next one that names the same line.
 */
export const UsageLine = Type.Object({
  projectId: uuid(),
  hour: hour(),
  admitted: count(0, { description: 'by the script, as far as its answers came' }),
  finished: count(0, { description: 'of those, the ones that have ended: they stand in this batch or in an earlier one' }),
  unanswered: count(0, { description: 'requests whose decision was not answered in time: the script may have counted them' })
})
export type UsageLine = Static<typeof UsageLine>

/** What became of the requests of a key, for one operation in one minute. */
export const UsageSum = Type.Object({
  api: freeText(1000),
  operation: freeText(4000),
  scope: freeText(1000, { description: 'under which it was allowed; empty: the operation is in none' }),
  minute: minute(),
  admitted: count(0, { description: 'by whomever they were counted, and however they ended' }),
  limited: count(0),
  refused: count(0),
  upstreamErrors: count(0, { description: 'of those admitted, the ones that the upstream failed' }),
  admittedLocally: count(0, { description: 'of those admitted, the ones that no script has counted, because Redis was away' })
})
export type UsageSum = Static<typeof UsageSum>

/** Who calls with a key. */
export const UsageCaller = Type.Object({
  address: machineText(100, { description: 'as the trusted hop gives it, or a hash of it' }),
  client: freeText(100, { description: 'the first product of the User-Agent; empty: none' }),
  secretId: machineText(100),
  lastSeenMs: moment(),
  counts: Type.Array(Type.Object({ hour: hour(), count: count(1) }), { maxItems: 100 })
})
export type UsageCaller = Static<typeof UsageCaller>

export const UsageOfKey = Type.Object({
  projectId: uuid(),
  keyId: machineText(100),
  secrets: Type.Array(Type.Object({ secretId: machineText(100), lastUsedMs: moment() }), { maxItems: 100, description: 'those with which something was admitted' }),
  sums: Type.Array(UsageSum, { maxItems: 100_000 }),
  callers: Type.Array(UsageCaller, { maxItems: 1000 })
})
export type UsageOfKey = Static<typeof UsageOfKey>

export const UsageOutcome = Type.Union([Type.Literal('admitted'), Type.Literal('limited'), Type.Literal('refused'), Type.Literal('upstream_error')])
export type UsageOutcome = Static<typeof UsageOutcome>

/** One request of a scope that is logged. Never a secret, a query string or a body. */
export const UsageRow = Type.Object({
  atMs: moment(),
  requestId: freeText(200),
  projectId: uuid(),
  keyId: machineText(100),
  secretId: machineText(100),
  api: freeText(1000),
  operation: freeText(4000),
  method: machineText(20),
  scope: freeText(1000),
  outcome: UsageOutcome,
  code: nullable(machineText(100, { description: 'of the refusal; null: there was none' })),
  status: Type.Integer({ minimum: 100, maximum: 999 }),
  ms: count(0),
  bytes: count(0, { description: 'of the upstream\'s body as it was passed on; none of our own answers' }),
  address: machineText(100),
  client: freeText(100)
})
export type UsageRow = Static<typeof UsageRow>

/** One entry of the stream of usage. (bootId, seq) is counted once, however often it comes. */
export const UsageBatch = Type.Object({
  version: Type.Literal(1),
  bootId: machineText(100),
  seq: count(0, { description: 'of this boot; 0 is its first sign of life and may be empty' }),
  atMs: moment(),
  replica: freeText(300),
  lines: Type.Array(UsageLine, { maxItems: 1_000_000 }),
  incarnations: Type.Array(Type.Object({ projectId: uuid(), incarnation: machineText(100), minute: minute() }), { maxItems: 1_000_000, description: 'memories of Redis that turned out to be new' }),
  keys: Type.Array(UsageOfKey, { maxItems: 1_000_000 }),
  rows: Type.Array(UsageRow, { maxItems: 1_000_000 })
})
export type UsageBatch = Static<typeof UsageBatch>

/** Where the batches are. */
export const usageStream = 'kg:usage:0'
/**
 * A set of the boots that send usage and whose end has not been seen to. What the cap takes off the stream may be all that a boot has ever said, and it is
 * not to be forgotten with that.
 */
export const usageBoots = 'kg:usage:boots'
/** The field of an entry that holds the batch as JSON. */
export const usageField = 'batch'
