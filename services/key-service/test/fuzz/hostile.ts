/** Texts that have broken programs before: SQL, markup, templates, paths, control characters, broken Unicode, other alphabets. */
export const hostileTexts: readonly string[] = [
  "'; DROP TABLE keys; --",
  "' OR '1'='1",
  "1' UNION SELECT digest::text FROM secrets --",
  "'||pg_sleep(0)||'",
  "\\'; SELECT pg_sleep(0)--",
  '$$; TRUNCATE projects CASCADE; $$',
  '%_%\\',
  '"><script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '{{7*7}}$' + '{7*7}<%= 7*7 %>#{7*7}',
  '../../../../etc/passwd',
  'C:\\..\\..\\boot.ini',
  'file:///etc/passwd',
  '$(id)`id`;id|id&&id',
  'a\u0000b',
  '\u0000',
  '\r\nSet-Cookie: a=b\r\n\r\n',
  'a\n{"level":60,"msg":"forged"}',
  '\u001b[31mred\u001b[0m\u0007\b',
  '\u009b31m\u0085',
  '\ud800',
  '\udfffx',
  'a\ud83d',
  '\ufeff\ufffe\uffff',
  '\u202e\u2066abc\u2069',
  'مرحبا بالعالم שלום',
  '👩‍👩‍👧‍👦🏳️‍🌈',
  'Ω≈ç√∫˜µ≤ 田中さん ﷽',
  'Z̮̞̠͙͔ͅḀ̗̞͈̻̗L̸͜͠G̢O',
  '\u00a0\u2003\u3000\u200b',
  'İıßſK',
  '__proto__',
  'constructor',
  'toString',
  'null',
  'undefined',
  'NaN',
  '-Infinity',
  '1e309',
  '0x7fffffffffffffff',
  '99999999999999999999999999',
  '-9223372036854775809',
  '10000-01-01T00:00:00Z',
  '+275760-09-13T00:00:00.001Z',
  '0000-00-00',
  '2027-02-30T25:61:61Z',
  '2027-01-31T00:00:00+99:99',
  '-000001-01-01T00:00:00Z',
  '::ffff:999.1.1.1/129',
  'fe80::1%eth0/64',
  '0x7f.1',
  '*',
  ',',
  '[]',
  '{}',
  '"',
  '\\',
  ' ',
  '',
  'x'.repeat(5000),
  'ab'.repeat(60)
]

/** One of each kind, for where every field is tried with each. */
export const sharpTexts: readonly string[] = [
  "'; DROP TABLE keys; --", "1' UNION SELECT digest::text FROM secrets --", '"><script>alert(1)</script>', 'a\u0000b', 'a\n{"level":60}\u001b[31m', '\ud800', '__proto__', '10000-01-01T00:00:00Z'
]

export const hostileNumbers: readonly number[] = [
  -1, 0, -0.5, 1.5, 2 ** 31, -(2 ** 31) - 1, 2 ** 53, 2 ** 63, -(2 ** 63), 1e21, 1e308, -1e308, 5e-324
]

/** Names of fields that mean something to JavaScript, or nothing to us. */
export const strangeNames: readonly string[] = ['nonsense', '__proto__', 'constructor', 'prototype', 'id', 'projectId', 'isAdmin', '$where', '', 'a.b', 'naïve\n', '\ud800']

/** Whether a client could put it into a header: what HTTP itself refuses never reaches us. */
export function isHeaderText (text: string): boolean {
  return /^[\t\u0020-\u007e\u0080-\u00ff]*$/.test(text)
}

/** Percent-encoded; halves of surrogate pairs as the bytes that no decoder accepts. */
export function encodeText (text: string): string {
  return [...text].map(character => /^\p{Cs}$/u.test(character) ? '%ED%A0%80' : encodeURIComponent(character)).join('')
}
