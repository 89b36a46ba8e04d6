const patterns = {
  // Any version and variant, either case: CHEFS, Teamwork and Qodly hand out random UUIDs as keys. Not nil and max (RFC 9562
  // sections 5.9 and 5.10), which are nobody's secret.
  uuid: /^(?!([0f])\1{7}(-\1{4}){3}-\1{12}$)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
}

/** The same within a longer text. Without exceptions: nobody is harmed if more is left out. */
const within: { [Form in keyof typeof patterns]: RegExp } = {
  uuid: /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/i
}

/** A format of secrets that other systems issued and that an installation may take over. */
export type ImportForm = keyof typeof patterns

/** Every form there is, for configuration to choose from. An installation enables none by default. */
export const importForms = Object.keys(patterns) as ImportForm[]

/**
 * True when `text` has the form of an importable secret, by one of the forms that this installation enables.
 *
 * Only such a text may cost a look-up; everything else that is not ours is refused without I/O. Case counts in the
 * look-up: a UUID in upper case is another secret than the same one in lower case.
 */
export function matchesImportForm (text: string, forms: readonly ImportForm[]): boolean {
  return forms.some(form => patterns[form].test(text))
}

/** True when what may be such a secret stands anywhere in `text`: then the text is not to be written down. */
export function hasImportForm (text: string, forms: readonly ImportForm[]): boolean {
  return forms.some(form => within[form].test(text))
}
