import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { csvLine, type Cell } from './csv.ts'
import type { DownloadFormat } from './schemas.ts'

/** A member of each object in NDJSON, a column in CSV. */
export interface Column<Row> { name: string, valueOf: (row: Row) => Cell }

export interface Download<Row> {
  /** Without an ending; ASCII, because the header takes nothing else: `keygate-log-2026-11-21`. */
  name: string
  format: DownloadFormat
  columns: ReadonlyArray<Column<Row>>
  /** Read only as fast as the client takes them, and returned early (`finally` runs) when the client has gone. */
  rows: AsyncIterable<Row>
}

const types: Record<DownloadFormat, string> = { ndjson: 'application/x-ndjson; charset=utf-8', csv: 'text/csv; charset=utf-8; header=present' }
/** Characters of one piece of the body. */
const pieceLength = 64 * 1024
/**
 * So long the first rows are waited for before the answer begins without them: longer than a statement may take, so that a database that is
 * away is told by the status, and shorter than a client or proxy waits. Milliseconds.
 */
const patienceMs = 3000

/**
 * Rows as text that is made while it is read: a piece at a time, however many rows there are.
 *
 * @throws what the first piece of rows throws, before anything has been sent; later faults are the stream's error.
 */
export async function toReadable<Row> ({ format, columns, rows }: Pick<Download<Row>, 'format' | 'columns' | 'rows'>): Promise<Readable> {
  const pieces = piecesOf(rows, columns, format)
  const first = await pieces.next()
  return Readable.from(resumed(first, pieces), { objectMode: false, highWaterMark: pieceLength })
}

/** `Content-Type` and `Content-Disposition` (RFC 6266), in small letters. */
export function downloadHeaders ({ name, format }: Pick<Download<unknown>, 'name' | 'format'>): Record<string, string> {
  if (!/^[\w.-]+$/.test(name)) throw new Error(`${JSON.stringify(name)} is no name of a file that a header can carry`)
  return { 'content-type': types[format], 'content-disposition': `attachment; filename="${name}.${format}"` }
}

/**
 * Answers a request with a download; HEAD with its headers alone, and nothing is read. Where rows are hard to find the headers go ahead: a
 * filter may let hardly any through, and others may be exporting too.
 */
export async function sendDownload<Row> (request: FastifyRequest, reply: FastifyReply, download: Download<Row>): Promise<FastifyReply> {
  const body = request.method === 'HEAD' ? Readable.from([]) : await soonOrLater(toReadable(download), () => { reply.raw.flushHeaders() })
  return reply.headers(downloadHeaders(download)).send(body)
}

async function soonOrLater (body: Promise<Readable>, onLate: () => void): Promise<Readable> {
  const waiting = new AbortController()
  const late = delay(patienceMs, undefined, { signal: waiting.signal }).catch(() => undefined)
  const soon = await Promise.race([body, late]).finally(() => { waiting.abort() })
  if (soon !== undefined) return soon
  body.catch(() => {}) // whoever has left meanwhile does not read it
  return Readable.from(afterHeaders(body, onLate), { objectMode: false, highWaterMark: pieceLength })
}

/** Read from when the headers are set, so this is when they can go. */
async function * afterHeaders (body: Promise<Readable>, send: () => void): AsyncGenerator<Buffer, void> {
  send()
  yield * await body
}

async function * piecesOf<Row> (rows: AsyncIterable<Row>, columns: ReadonlyArray<Column<Row>>, format: DownloadFormat): AsyncGenerator<string, void> {
  const lineOf = format === 'csv'
    ? (row: Row) => csvLine(columns.map(({ valueOf }) => valueOf(row)))
    : (row: Row) => `${JSON.stringify(Object.fromEntries(columns.map(({ name, valueOf }) => [name, valueOf(row)])))}\n`
  let piece = format === 'csv' ? csvLine(columns.map(({ name }) => name)) : ''
  for await (const row of rows) {
    piece += lineOf(row)
    if (piece.length < pieceLength) continue
    yield piece
    piece = ''
  }
  if (piece !== '') yield piece
}

async function * resumed (first: IteratorResult<string, void>, others: AsyncGenerator<string, void>): AsyncGenerator<string> {
  if (first.done === true) return
  try {
    yield first.value
    yield * others
  } finally {
    await others.return()
  }
}
