import { oneOf, text } from '../schemas.ts'

export const downloadFormats = ['ndjson', 'csv'] as const
export type DownloadFormat = typeof downloadFormats[number]

/** What an export takes beside its filters: `Type.Object({ ...filters, format: Format }, { additionalProperties: false })`. */
export const Format = oneOf([...downloadFormats], { default: 'ndjson', description: '`ndjson`: one JSON object per line; `csv`: RFC 4180 with a line of names, in UTF-8' })

const file = text(2 ** 31 - 1)

/** The answer of an export, for its route's schema: `response: { 200: DownloadedFile }`. */
export const DownloadedFile = {
  description: 'All rows as a file, streamed. A body that breaks off, without the end of its last chunk, is not complete.',
  headers: { 'Content-Disposition': text(200, { description: 'the name of the file' }) },
  content: { 'application/x-ndjson': { schema: file }, 'text/csv': { schema: file } }
}
