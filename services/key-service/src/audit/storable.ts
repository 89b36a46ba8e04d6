/**
 * The value as it comes back from a `jsonb` column, so that what is hashed is what is stored: no `undefined`, dates as text.
 *
 * NUL and halves of surrogate pairs, which PostgreSQL refuses, become U+FFFD: a client's odd text must not keep an event from being
 * written down.
 */
export function storable<T> (value: T): T {
  // JSON.stringify escapes both, and halves alone are escaped as d8.. to df..; the last alternative steps over all other escapes.
  return JSON.parse(JSON.stringify(value).replace(/\\(?:u0000|ud[89a-f]\w\w|.)/g, escape => escape.length === 6 ? '\\ufffd' : escape)) as T
}
