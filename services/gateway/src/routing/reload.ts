import { CatalogueError } from '@keygate/api-catalog'
import type { FastifyBaseLogger } from 'fastify'
import type { Metrics } from '../metrics.ts'
import type { LiveCatalogue } from './live-catalogue.ts'

/**
 * Reads the catalogue anew when it is asked to (SIGHUP). A faulty one, or one that could not be read to its end, changes nothing and says why;
 * a request goes on with the table that it was matched with.
 */
export function reloader (live: LiveCatalogue, { log, metrics }: { log: FastifyBaseLogger, metrics: Metrics }): () => void {
  let last: ReturnType<LiveCatalogue['reload']> | undefined
  return () => {
    const reading = live.reload()
    // Many who ask at once share a reading, and it is one line in the log.
    if (reading === last) return
    last = reading
    reading.then(({ catalogue: { apis } }) => {
      metrics.catalogueReloads.inc({ result: 'taken' })
      log.info({ apis: apis.length, operations: apis.reduce((sum, { operations }) => sum + operations.length, 0) }, 'the catalogue was read anew')
    }, (error: Error) => {
      // Otherwise nothing is known of it: its reader was not started, was ended or was late. To ask again may help.
      const isFaulty = error instanceof CatalogueError
      metrics.catalogueReloads.inc({ result: isFaulty ? 'faulty' : 'failed' })
      log.error({ reason: error.message }, `the new catalogue ${isFaulty ? 'has a fault' : 'could not be read'}, the old one stays`)
    })
  }
}
