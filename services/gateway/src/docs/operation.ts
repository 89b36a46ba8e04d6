import { whoMayCall, type Api, type Operation, type PublishedOperation, type PublishedPolicy } from '@keygate/api-catalog'
import { html, type Html } from './html.ts'
import type { ListedOperation, Parameter } from './published-document.ts'

/** One operation: what it is, what it takes, and what the gateway asks for. `row` is what it is in the table. */
export function operationArticle (api: Api, operation: ListedOperation, row: Operation | undefined, anchor: string): Html {
  const { method, path, summary, description, deprecated, parameters, body, answers, 'x-keygate': enforced } = operation
  return html`<article class="${enforced.access}" id="${anchor}">
<h3><code>${method} ${pathText(api.prefix + path)}</code></h3>
<p class="mark">${markOf(operation)}</p>
${summary === undefined ? null : html`<p>${formatted(summary)}</p>`}${deprecated === true ? html`<p>Deprecated: do not begin to use it.</p>` : null}${paragraphs(description)}
<dl>
<dt>Who may call</dt><dd>${row === undefined ? '' : whoMayCall(api, row)}</dd>
<dt>Scopes</dt><dd>${enforced.scopes.length === 0 ? 'none' : enforced.scopes.map((scope, i) => [i === 0 ? '' : ', ', html`<code>${scope}</code>`, enforced.optIn.includes(scope) ? ' (must be given by name)' : ''])}</dd>
<dt>Limits</dt><dd>${limitsOf(enforced)}</dd>
</dl>
${parameters.length === 0 ? null : html`<h4>Parameters</h4><ul>${parameters.map(parameter => parameterItem(api, parameter))}</ul>`}${
body.length === 0 ? null : html`<h4>Body</h4><p>${body.map((type, i) => [i === 0 ? '' : ', ', html`<code>${type}</code>`])}</p>`}${
answers.length === 0 ? null : html`<h4>Answers</h4><ul>${answers.map(({ status, description }) => html`<li><code>${status}</code> ${formatted(description)}</li>`)}</ul>`}
</article>
`
}

/** `120 in 60 seconds (default)`: the limit first, its name for who meets it in a 429. */
export function describePolicy ({ name, limit, windowSeconds, algorithm, partition }: PublishedPolicy): string {
  const owner = { key: 'per key', project: 'per project', address: 'per address' }[partition]
  return `${limit} in ${windowSeconds} seconds ${owner} (${name}${algorithm === 'fixed' ? ', fixed window' : ''})`
}

function limitsOf ({ policies, anonymousPolicies }: PublishedOperation): string {
  const own = policies.length === 0 ? 'none' : policies.map(describePolicy).join('; ')
  return anonymousPolicies === undefined ? own : `${own}. Without a key: ${anonymousPolicies.map(describePolicy).join('; ')}`
}

/** A path that may be broken behind each slash. */
export function pathText (path: string): Html[] {
  return path.split(/(?<=\/)/).map((part, i) => i === 0 ? html`${part}` : html`<wbr>${part}`)
}

/** Each block of text as a paragraph. */
export function paragraphs (text: string | undefined): Html[] {
  return (text ?? '').split(/\n\s*\n/).filter(block => block.trim() !== '').map(block => html`<p>${formatted(block.trim())}</p>`)
}

/** Texts are Markdown by OpenAPI: of that, code and strong emphasis are shown so, and the rest as it is written (CommonMark 6.1, 6.2). */
function formatted (text: string): Html[] {
  return text.split(/(`[^`]+`|\*\*[^*\s](?:[^*]*[^*\s])?\*\*)/).map((part, i) => {
    if (i % 2 === 0) return html`${part}`
    return part.startsWith('`') ? html`<code>${part.slice(1, -1)}</code>` : html`<strong>${part.slice(2, -2)}</strong>`
  })
}

export function markOf ({ 'x-keygate': { access } }: ListedOperation): string {
  return { key: 'Open to keys', public: 'Open to everybody', other: 'Not open to keys' }[access]
}

function parameterItem ({ projectParameter }: Api, { name, in: place, required, type, description }: Parameter): Html {
  const notes = [`in ${place}`, ...(type === '' ? [] : [type]), ...(required ? ['required'] : []), ...(place === 'path' && name === projectParameter ? ['the id of the key\'s project'] : [])]
  return html`<li><code>${name}</code> <span class="quiet">${notes.join(', ')}</span>${paragraphs(description)}</li>`
}
