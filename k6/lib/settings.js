/** @import { Plan, Settings } from './types.ts' */

/**
 * Where to call: the environment first, then the file that `npm start` writes.
 *
 * @param {Record<string, string | undefined>} env
 * @param {() => string} readLocalFile
 * @returns {Settings}
 */
export function readSettings (env, readLocalFile) {
  const given = {
    keyService: env['KEYGATE_KEY_SERVICE'],
    gateways: env['KEYGATE_GATEWAYS']?.split(',').map(url => url.trim()),
    projectId: env['KEYGATE_PROJECT_ID'],
    operatorToken: env['KEYGATE_OPERATOR_TOKEN'],
    example: env['KEYGATE_EXAMPLE']
  }
  const complete = Object.values(given).every(value => value !== undefined)
  const local = complete ? {} : JSON.parse(readLocalFile())
  const settings = /** @type {Settings} */ (Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, value ?? local[name]])))
  const missing = Object.keys(given).filter(name => settings[/** @type {keyof Settings} */ (name)] === undefined)
  if (missing.length > 0) throw new Error(`Not set, and not in .keygate/local.json: ${missing.join(', ')}. Run "npm start" first, or see k6/README.md for the variables.`)
  return local.redis === null ? { ...settings, alone: true } : settings
}

/**
 * The load of shared-limit: four times the limit, all of it within one window.
 * So the answer is exact: `limit` calls pass, the rest does not, however the calls fall on the gateways.
 *
 * @param {Record<string, string | undefined>} env
 * @returns {Plan}
 */
export function readPlan (env) {
  const limit = wholeNumber(env, 'KEYGATE_LIMIT', 1, 40)
  const windowSeconds = wholeNumber(env, 'KEYGATE_WINDOW_SECONDS', 2, 30)
  const durationSeconds = Math.floor(windowSeconds * 0.8)
  return { limit, windowSeconds, durationSeconds, ratePerSecond: Math.ceil(4 * limit / durationSeconds) }
}

/**
 * @param {Record<string, string | undefined>} env
 * @param {string} name
 * @param {number} least
 * @param {number} otherwise
 */
function wholeNumber (env, name, least, otherwise) {
  const value = env[name] === undefined ? otherwise : Number(env[name])
  if (!Number.isInteger(value) || value < least) throw new Error(`${name} must be a whole number from ${least}, but is ${env[name]}.`)
  return value
}
