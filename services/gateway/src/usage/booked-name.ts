import { createHash } from 'node:crypto'

/** Characters of a name. Those of three names together, of three bytes each, are what an entry of an index holds in PostgreSQL (2704 bytes). */
const longest = { api: 200, operation: 400, scope: 200 }

/** Names of a catalogue are few, and each is asked for many times a second. A catalogue that is read anew may bring others. */
const remembered = 100_000
const known = { api: new Map<string, string>(), operation: new Map<string, string>(), scope: new Map<string, string>() }

/**
 * A name of the catalogue as it is booked. The catalogue takes any text, but a batch that has one which cannot be stored is lost with all that is in
 * it: so a name is cut that is too long, with a hash of all of it at its end, and what is no character is replaced.
 */
export function bookedName (text: string, kind: keyof typeof longest): string {
  const names = known[kind]
  let name = names.get(text)
  if (name !== undefined) return name
  name = toBooked(text, longest[kind])
  if (names.size >= remembered) names.clear()
  names.set(text, name)
  return name
}

function toBooked (text: string, most: number): string {
  const name = Buffer.from(text).toString().replaceAll('\0', '\ufffd')
  if (name.length <= most) return name
  const end = `~${createHash('sha256').update(name).digest('base64url').slice(0, 12)}`
  return Buffer.from(name.slice(0, most - end.length)).toString() + end
}
