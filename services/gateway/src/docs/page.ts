import { createHash } from 'node:crypto'
import type { Api } from '@keygate/api-catalog'
import { html, Html } from './html.ts'
import { describePolicy, markOf, operationArticle, paragraphs, pathText } from './operation.ts'
import { listOperations, type ListedOperation, type PublishedDocument } from './published-document.ts'
import { style } from './style.ts'

/** No script, nothing loaded from anywhere, and no style but this one (CSP Level 3 section 2.3.1). */
export const contentSecurityPolicy = [
  'default-src \'none\'',
  `style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'`,
  'base-uri \'none\'',
  'form-action \'none\'',
  'frame-ancestors \'none\''
].join('; ')

/** The page of an API: how to send a key, and every operation with who may call it. All of its texts are the document's, shown as text. */
export function renderPage (api: Api, document: PublishedDocument): string {
  const { info } = document
  const rows = new Map(api.operations.map(row => [`${row.method} ${row.path}`, row]))
  const operations = listOperations(document).map((operation, i) => ({ operation, anchor: `operation-${i + 1}` }))
  return html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${info.title}</title>
<style>${styleText}</style>
</head>
<body>
<header>
<h1>${info.title}</h1>
<p class="quiet">Version ${info.version} · <a href="${api.prefix}/openapi.json">OpenAPI document</a> · <a href="#operations">${operations.length} operations</a></p>
${paragraphs(info.description)}
</header>
<nav class="bar" aria-label="On this page"><ul><li><a href="#calling">Calling</a></li>${api.scopes.length === 0 ? null : html`<li><a href="#scopes">Scopes</a></li>`}<li><a href="#operations">Operations</a></li></ul></nav>
<main>
${howToCall(api, operations.map(({ operation }) => operation), document.servers[0].url)}
${scopesSection(api)}
<h2 id="operations">Operations</h2>
<nav class="list" aria-labelledby="operations"><ul>
${operations.map(({ operation, anchor }) => html`<li><a href="#${anchor}"><code>${operation.method}</code> <span><code>${pathText(operation.path)}</code>${operation['x-keygate'].access === 'other' ? ` (${markOf(operation).toLowerCase()})` : ''}</span></a></li>
`)}</ul></nav>
${operations.map(({ operation, anchor }) => operationArticle(api, operation, rows.get(`${operation.method} ${operation.path}`), anchor))}
</main>
<footer><p class="quiet">This page and the document are made from the table that the gateway enforces.</p></footer>
</body>
</html>
`.text
}

/** Not escaped: the hash of the policy is of these very characters. */
const styleText = new Html(style)

function howToCall (api: Api, operations: ListedOperation[], url: string): Html {
  const { carriers } = api
  if (carriers.length === 0) return html`<h2 id="calling">Calling this API</h2><p>No operation takes a key.</p>`
  const base = URL.canParse(url) ? url : `https://<host>${url === '/' ? '' : url}`
  const path = examplePath(api, operations)
  const ways = carriers.map(carrier => carrier.kind === 'basic'
    ? html`<h3>Basic</h3>
<p>The user name is the id of your project, the password is the key.</p>
<pre><code>curl --user "$PROJECT_ID:$KEY" "${quoted(base)}${path}"</code></pre>`
    : html`<h3>The header <code>${carrier.name}</code></h3>
<p>Its value is the key, and nothing else.</p>
<pre><code>curl --header "${quoted(carrier.name)}: $KEY" "${quoted(base)}${path}"</code></pre>`)
  return html`<h2 id="calling">Calling this API</h2>
<p>The address is <code>${base}</code>. Send your key in ${carriers.length === 1 ? 'this way' : 'one of these ways, never in two at once'}; each operation says which it takes. Never put a key into a URL.</p>
${ways}
${api.projectParameter === null ? null : html`<p>Where a path has <code>{${api.projectParameter}}</code>, that is the id of the key's project.</p>`}
<p>Unless your key or project has limits of its own: ${api.policies.map(describePolicy).join('; ')}. The fields <code>RateLimit</code> and <code>RateLimit-Policy</code> of each answer tell what is left; after a 429 wait as many seconds as <code>Retry-After</code> says.</p>`
}

/** Of an operation that can be tried at once: one that reads, takes a key, and needs nothing else if there is such a one. */
function examplePath ({ projectParameter }: Api, operations: ListedOperation[]): string {
  const open = operations.filter(operation => operation['x-keygate'].access === 'key')
  const rank = ({ method, path }: ListedOperation): number => (method === 'GET' ? 0 : 100) + [...path.matchAll(/\{([^{}]*)\}/g)].filter(([, name]) => name !== projectParameter).length
  const [first] = open.sort((a, b) => rank(a) - rank(b))
  return (first?.path ?? '').split(/\{([^{}]*)\}/).map((part, i) => i % 2 === 1 && part === projectParameter ? '$PROJECT_ID' : quoted(i % 2 === 1 ? `<${part}>` : encodeURI(part))).join('')
}

/** As it may stand between a shell's double quotes: whoever copies a line runs nothing that the document wrote. */
function quoted (text: string): string {
  return text.replace(/[$`"\\!]/g, '\\$&')
}

function scopesSection ({ scopes, optInScopes }: Api): Html | null {
  if (scopes.length === 0) return null
  return html`<h2 id="scopes">Scopes</h2>
<p>A key can call the operations of the scopes that it holds.</p>
<ul>${scopes.map(scope => html`<li><code>${scope}</code>${optInScopes.includes(scope) ? ' (must be given by name; “all scopes” leaves it out)' : ''}</li>`)}</ul>`
}
