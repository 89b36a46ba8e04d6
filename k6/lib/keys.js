/** @import { Key, Policy, Settings, Tools } from './types.ts' */

/**
 * Issues a key for one run, so that a run neither uses up nor depends on somebody else's limit.
 *
 * @param {Tools} tools
 * @param {Settings} settings
 * @param {string} name
 * @param {Policy} policy
 * @returns {Promise<Key>}
 */
export async function createKey (tools, settings, name, policy) {
  const answer = await tools.request('POST', keysUrl(settings),
    { authorization: `Bearer ${settings.operatorToken}`, 'content-type': 'application/json' },
    JSON.stringify({ name, allowedForAll: true, policies: [{ name: 'default', ...policy }] }))
  // The body of a refusal is a problem; only the 201 carries a secret, and that is never printed.
  if (answer.status !== 201) throw new Error(`key-service did not issue a key: ${answer.status} ${answer.body}`)
  const { id, secret } = JSON.parse(answer.body)
  return { id, secret }
}

/**
 * @param {Tools} tools
 * @param {Settings} settings
 * @param {Key} key
 */
export async function deleteKey (tools, settings, key) {
  const answer = await tools.request('DELETE', `${keysUrl(settings)}/${key.id}`, { authorization: `Bearer ${settings.operatorToken}` })
  tools.check(answer, { 'the key is deleted': ({ status }) => status === 204 })
}

/** @param {Settings} settings */
function keysUrl ({ keyService, projectId }) {
  return `${keyService}/v1/projects/${projectId}/keys`
}
