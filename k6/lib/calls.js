/** @import { Answer, Key, Settings, Tools } from './types.ts' */

/**
 * Calls the example operation at one gateway.
 *
 * @param {Tools} tools
 * @param {Settings} settings
 * @param {string} gateway
 * @param {Record<string, string>} credentials
 * @returns {Promise<Answer>}
 */
export async function call (tools, settings, gateway, credentials) {
  return await tools.request('GET', gateway + settings.example, credentials)
}

/**
 * The project's id and the secret, as RFC 7617 has them.
 *
 * @param {Tools} tools
 * @param {Settings} settings
 * @param {Key} key
 */
export function basic (tools, { projectId }, { secret }) {
  return { authorization: `Basic ${tools.base64(`${projectId}:${secret}`)}` }
}

/**
 * The secret alone, in the header that the demo API's document names.
 *
 * @param {Key} key
 */
export function header ({ secret }) {
  return { 'x-api-key': secret }
}
