import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Effect } from '../outbox/make-change.ts'
import { etagOf } from '../preconditions.ts'
import { askOf } from './ask.ts'
import type { Once, OnceAnswer, RunOnce } from './once.ts'

/** What commands make that tell a secret: the key, and how its change went on. */
export interface Issued<Row> { row: Row, secret: string | undefined, effect: Effect }

interface IssuedRow { id: string, projectId: string, version: number }

/** While an answer is being kept: how its change goes on is told later. */
const unknownYet: Effect = { effective: 'pending', effectiveAt: null }

/**
 * Answers a request that makes a secret: once, or again and again with the same answer when it bears an Idempotency-Key.
 *
 * @param view the key as answers show it.
 */
export function createIssuer<Row extends IssuedRow> (runOnce: RunOnce, view: (changed: { row: Row, effect: Effect }) => object) {
  return async (request: FastifyRequest, reply: FastifyReply, status: 200 | 201, change: (once?: Once<Omit<Issued<Row>, 'effect'>>) => Promise<Issued<Row>>): Promise<FastifyReply> => {
    const ask = askOf(request, status)
    const { body, isReplay }: Omit<OnceAnswer, 'status'> = ask === undefined
      ? await change().then(({ secret, ...changed }) => ({ body: { ...view(changed), secret }, isReplay: false }))
      : await runOnce(ask, ({ row, secret }) => ({ projectId: row.projectId, keyId: row.id, body: view({ row, effect: unknownYet }), secret }), change)
    const { projectId, id, version } = body as IssuedRow
    if (status === 201) reply.header('location', `/v1/projects/${projectId}/keys/${id}`)
    if (isReplay) reply.header('idempotency-replayed', 'true')
    return await reply.code(status).headers({ 'cache-control': 'no-store', etag: etagOf({ version }) }).send(body)
  }
}
