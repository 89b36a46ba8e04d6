/** Fields of one connection, not of the message (RFC 9110 section 7.6.1), and what only the client of the next hop may write. */
export const hopByHop: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer',
  'transfer-encoding', 'upgrade', 'http2-settings', 'expect', 'host'])

/** The fields that a `Connection` names: they are of this hop too. `null` for the usual ones, which name none. */
export function namedByConnection (connection: string | undefined): Set<string> | null {
  if (connection === undefined || /^(?:keep-alive|close)$/i.test(connection)) return null
  return new Set(connection.toLowerCase().split(',').map(name => name.trim()))
}
