import { publishedDocument, type Api } from '@keygate/api-catalog'
import { etagOf } from './etag.ts'
import { renderPage } from './page.ts'
import type { PublishedDocument } from './published-document.ts'

/** A body as it is sent, and its entity tag. */
export interface PublishedText { body: Uint8Array, etag: string }

/** What the gateway tells of an API itself. */
export interface PublishedTexts {
  /** `<prefix>/openapi.json` */
  document: PublishedText
  /** `<prefix>/docs` */
  docs: PublishedText
}

/** Makes both once, so that a request for them costs no more than to send them: whoever asks needs no key. */
export function publishedTexts (api: Api): PublishedTexts {
  const document = publishedDocument(api)
  return { document: textOf(JSON.stringify(document)), docs: textOf(renderPage(api, document as PublishedDocument)) }
}

function textOf (text: string): PublishedText {
  return { body: Buffer.from(text), etag: etagOf(text) }
}
