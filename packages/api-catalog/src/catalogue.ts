/** How many requests are admitted in which time; the words are those of the IETF RateLimit draft. */
export interface Policy {
  name: string
  limit: number
  windowSeconds: number
  algorithm: 'sliding' | 'fixed'
  /** What is counted apart. */
  partition: 'key' | 'project' | 'address'
  /** While Redis does not answer: count this gateway's share, admit uncounted, or refuse. Absent: `local`. */
  whenStoreIsDown?: 'local' | 'open' | 'closed'
}

/** Where in a request one of our keys travels. `name` is a header's name in lower case. */
export type Carrier = { kind: 'basic' } | { kind: 'header', name: string }

/** One alternative of an operation's security that our credentials satisfy (OpenAPI: Security Requirement Object). */
export interface Requirement {
  carrier: Carrier
  /** Names of the other schemes that the same alternative demands beside the key. */
  also: string[]
  /** True when one of those is a token in `Authorization: Bearer` (http bearer, oauth2, openIdConnect). */
  alsoBearer: boolean
}

export interface Operation {
  /** The `operationId`, else method and path: `GET /forms/{formId}`. Unique within its API. */
  id: string
  /** Upper case. */
  method: string
  /** The OpenAPI template below the API's prefix, e.g. `/forms/{formId}`. */
  path: string
  /** `key`: open to keys. `public`: needs no credentials. `other`: listed, but not open to keys. */
  access: 'key' | 'public' | 'other'
  /** The document also admits a call without credentials: `security: []`, or `{}` among the alternatives. */
  anonymous: boolean
  /** A bearer token without a key is among the alternatives; matters with `otherSchemes: forward`. */
  offersBearer: boolean
  /** Empty unless `access` is `key`. In the document's order. */
  requirements: Requirement[]
  scopes: string[]
  /** Its own, in addition to whichever list applies. */
  policies: Policy[]
}

/** How pages of other origins may call an API, answered by the gateway itself (Fetch Standard, CORS protocol). */
export interface Cors {
  /** As a browser writes them, `https://app.example.org`; or `*` alone. */
  origins: string[]
  /** Request headers that a page may send beside those of our keys and `Content-Type`. */
  headers: string[]
  /** Answer headers that a page may read beside the gateway's own. */
  exposedHeaders: string[]
  /** How long a browser may remember the answer to a preflight. */
  maxAgeSeconds: number
}

export interface Api {
  name: string
  /** Begins with `/`, does not end with one; empty for an API at the root. `prefix + operation.path` is the public path. */
  prefix: string
  publicUrl: string | null
  /** Without trailing slash: `upstream + operation.path` is what is called. */
  upstream: string
  /** Where it says so, for faults that only a gateway can find: `apis.yaml:5 apis[0].upstream`. */
  upstreamPlace: string
  /** The path parameter that must be the key's project. */
  projectParameter: string | null
  /** All that its operations name, sorted. */
  scopes: string[]
  /** Those of `scopes` that "all scopes" does not include. */
  optInScopes: string[]
  unlisted: 'deny' | 'forward'
  otherSchemes: 'refuse' | 'forward'
  /** `forward`: the upstream answers preflights, and says itself who may read its answers. */
  cors: 'forward' | Cors
  policies: Policy[]
  anonymousPolicies: Policy[]
  /** Every carrier of our keys that some operation offers, `basic` first. */
  carriers: Carrier[]
  /** In the document's order. */
  operations: Operation[]
  /** The OpenAPI document as one file, made for `publishedDocument`: Path Items in their places, no servers, webhooks and callbacks. */
  document: object
}

/** What `loadCatalogue` makes of `apis.yaml`. Frozen, all the way down. */
export interface Catalogue {
  apis: Api[]
}
