/** As much of RFC 9651 as the RateLimit fields of draft-7 use, read strictly: what it does not know it refuses. */

const integer = '-?[0-9]{1,15}'
const key = '[a-z*][a-z0-9_.*-]*'

/** A Dictionary whose values are integers. */
export function parseDictionary (field: string): Record<string, number> {
  return Object.fromEntries(field.split(/[ \t]*,[ \t]*/).map(member => {
    const [, name, value] = new RegExp(`^(${key})=(${integer})$`).exec(member) ?? refuse(field)
    return [name, Number(value)]
  }))
}

/** A List of integers, each with a parameter `w`. */
export function parseList (field: string): Array<{ value: number, w: number }> {
  return field.split(/[ \t]*,[ \t]*/).map(item => {
    const [, value, w] = new RegExp(`^(${integer}); *w=(${integer})$`).exec(item) ?? refuse(field)
    return { value: Number(value), w: Number(w) }
  })
}

function refuse (field: string): never {
  throw new Error(`not a structured field: ${field}`)
}
