/** Something secret with the id that stands in the database in its place. */
export interface Named<T> { id: string, value: T }

/** The current one makes what is new; the previous ones still read what is old. */
export interface Ring<T> { current: Named<T>, previous: Array<Named<T>> }

/** 32 bytes each. */
export type EncryptionKeys = Ring<Buffer>
export type PepperSet = Ring<string>

/** The three settings of a ring as they come from the environment. `previous`: `id:value`, separated by commas or line breaks. */
export interface RingSettings { current: string | undefined, currentId: string, previous: string | undefined }

/** Each fault begins with the variable, says what to do, and quotes no value. */
export type Parsed<T> = { value: T } | { faults: string[] }

/** What tells one ring from the other. `read` gives undefined for text that cannot be one. */
interface Kind<T> { variable: string, previousVariable: string, entry: string, wanted: string, read: (text: string) => T | undefined }

const encryptionKey: Kind<Buffer> = {
  variable: 'KEYGATE_ENCRYPTION_KEY',
  previousVariable: 'KEYGATE_PREVIOUS_ENCRYPTION_KEYS',
  entry: 'id:base64',
  wanted: '32 random bytes as base64, as "openssl rand -base64 32" prints them',
  read: text => /^[A-Za-z0-9+/_-]{43}=?$/.test(text) ? Buffer.from(text, 'base64') : undefined
}

const pepper: Kind<string> = {
  variable: 'KEYGATE_PEPPER',
  previousVariable: 'KEYGATE_PREVIOUS_PEPPERS',
  entry: 'id:pepper',
  // A pepper that no list can hold could never be replaced: it is refused before anything is digested with it.
  wanted: 'at least 32 characters without a comma, a line break or a space at either end, such as "openssl rand -base64 32" prints',
  read: text => text.length >= 32 && !/[,\r\n]/.test(text) && text === text.trim() ? text : undefined
}

/** `undefined` as the value: there is no key, so nothing is kept for revealing. */
export function parseEncryptionKeys (settings: RingSettings): Parsed<EncryptionKeys | undefined> {
  if (settings.current !== undefined) return parseRing(encryptionKey, { ...settings, current: settings.current })
  return listOf(settings.previous).length === 0
    ? { value: undefined }
    : { faults: ['KEYGATE_PREVIOUS_ENCRYPTION_KEYS is set without KEYGATE_ENCRYPTION_KEY: make one of the keys the current one'] }
}

export function parsePeppers ({ current = '', ...settings }: RingSettings): Parsed<PepperSet> {
  return parseRing(pepper, { ...settings, current })
}

function parseRing<T> (kind: Kind<T>, settings: RingSettings & { current: string }): Parsed<Ring<T>> {
  const { variable, wanted, read } = kind
  const faults: string[] = []
  const value = read(settings.current)
  if (value === undefined) faults.push(`${variable} must be ${wanted}`)
  if (!isId(settings.currentId)) faults.push(`${variable}_ID must be 1 to 32 letters, digits, "_" or "-"`)
  const previous: Array<Named<T>> = []
  const ids = new Set<string>()
  for (const [index, text] of listOf(settings.previous).entries()) {
    const entry = readEntry(kind, text, index + 1)
    if ('fault' in entry) faults.push(entry.fault)
    else if (entry.id === settings.currentId) faults.push(`${kind.previousVariable} has "${entry.id}", which is the id of the current one too: give the current one a new id in ${variable}_ID`)
    else if (ids.has(entry.id)) faults.push(`${kind.previousVariable} has "${entry.id}" twice: keep one of them`)
    else previous.push(entry)
    if ('id' in entry) ids.add(entry.id)
  }
  return value === undefined || faults.length > 0 ? { faults } : { value: { current: { id: settings.currentId, value }, previous } }
}

function readEntry<T> ({ previousVariable, entry, wanted, read }: Kind<T>, text: string, number: number): Named<T> | { fault: string } {
  const colon = text.indexOf(':')
  if (colon === -1) return { fault: `${previousVariable} has no colon in entry ${number}: write ${entry}, separated by commas or line breaks` }
  const id = text.slice(0, colon)
  if (!isId(id)) return { fault: `${previousVariable} has an id in entry ${number} that is not 1 to 32 letters, digits, "_" or "-": write ${entry}` }
  const value = read(text.slice(colon + 1))
  return value === undefined ? { fault: `${previousVariable} has a value in entry ${number} that cannot be one: it must be ${wanted}` } : { id, value }
}

function isId (text: string): boolean {
  return /^[A-Za-z0-9_-]{1,32}$/.test(text)
}

function listOf (text = ''): string[] {
  return text.split(/[,\r\n]/).map(entry => entry.trim()).filter(entry => entry !== '')
}
