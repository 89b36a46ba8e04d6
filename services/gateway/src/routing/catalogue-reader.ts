import { setPriority } from 'node:os'
import { CatalogueError } from '@keygate/api-catalog'
import type { ReaderMessage } from './load-apart.ts'
import { loadHere } from './loaded-catalogue.ts'

/** So many operations are unpacked in one go: about a millisecond. */
const sliceLength = 200

// The program that `loadApart` runs: it reads the catalogue that its argument names, and sends it to its parent, a piece at a time.
process.once('disconnect', () => { process.exit(1) })
// Meant for the gateway, though it may reach all of its group.
process.on('SIGHUP', () => {})
try {
  // Where there are few processors, requests come first.
  setPriority(5)
} catch {
  // It is a wish.
}

try {
  const { catalogue, published } = await loadHere(process.argv[2] ?? '')
  for (const [i, { operations, ...api }] of catalogue.apis.entries()) {
    await send({ api: { ...api, operations: [] } })
    for (let from = 0; from < operations.length; from += sliceLength) await send({ operations: operations.slice(from, from + sliceLength) })
    await send({ published: published[i] as typeof published[number] })
  }
  await send({ isDone: true })
} catch (error) {
  await send(error instanceof CatalogueError ? { faults: error.faults } : { failure: error instanceof Error ? error.message : String(error) })
}

async function send (message: ReaderMessage): Promise<void> {
  await new Promise<void>(resolve => { process.send?.(message, () => { resolve() }) })
}
