import { generateSecret, hasImportForm, matchesImportForm, parseSecret, type ImportForm } from '@keygate/api-key'

export interface SecretForms {
  /** What issued secrets begin with. */
  prefix: string
  /** Forms of other systems' secrets that this installation takes over. */
  importForms: readonly ImportForm[]
}

/** Tells our secrets by their characters alone, wherever they stand: one that is found stays here, and costs no look-up. */
export class OurSecrets {
  readonly #forms: SecretForms
  readonly #begin: string
  readonly #length: number

  constructor (forms: SecretForms) {
    this.#forms = forms
    this.#begin = `${forms.prefix}_`
    this.#length = generateSecret(forms.prefix).length // all are of one length
  }

  /** True when a secret may be somebody's; any other is refused without I/O. */
  mayBe (text: string): boolean {
    const { kind } = parseSecret(text, this.#forms.prefix)
    return kind === 'issued' || (kind === 'foreign' && matchesImportForm(text, this.#forms.importForms))
  }

  /** Whether a field's value has an issued secret in it, true to the checksum. Nearly all values cost one `includes`. */
  isInField (value: string): boolean {
    return value.includes(this.#forms.prefix) && this.#isInText(value)
  }

  /** Whether a path or query has one in it; each of its characters may be percent-encoded, the escapes too. */
  isInTarget (url: string): boolean {
    return url.includes('%') ? this.#isInText(url) : this.#stands(url)
  }

  /** Whether a field that carries keys has what may be a secret: as it is, behind a scheme's name, or among several. */
  isCarriedBy (value: string): boolean {
    return value.split(/[\s,;="]+/).some(part => this.mayBe(part))
  }

  /** Whether a text that carries no key, such as a client's name, may have one in it all the same: an issued one, or one of an import form, wherever it stands. */
  mayStandIn (text: string): boolean {
    return this.#isInText(text) || hasImportForm(text.includes('%') ? unescaped(text) : text, this.#forms.importForms)
  }

  /** Whether any Basic in a field has what may be a secret as its password, or an issued one anywhere. As lenient as its most lenient reader. */
  isInBasic (value: string): boolean {
    for (const [, token = ''] of value.matchAll(/basic([^,]*)/gi)) {
      const userPass = Buffer.from(token, 'base64').toString('latin1')
      const parts = unescaped(userPass).split(':')
      if (this.#isInText(userPass) || (parts.length > 1 ? parts.slice(1) : parts).some(part => this.mayBe(part.trim()))) return true
    }
    return false
  }

  #isInText (text: string): boolean {
    return this.#stands(text) || (text.includes('%') && this.#stands(unescaped(text)))
  }

  #stands (text: string): boolean {
    for (let at = text.indexOf(this.#begin); at !== -1; at = text.indexOf(this.#begin, at + 1)) {
      if (parseSecret(text.slice(at, at + this.#length), this.#forms.prefix).kind === 'issued') return true
    }
    return false
  }
}

/** Escapes of escapes that are looked through: more readers than that do not stand behind one another. */
const deepest = 3

/** A text without percent-encoding, a byte a character; what is no escape stays (RFC 3986 section 2.1). Secrets are ASCII. */
function unescaped (text: string): string {
  for (let i = 0; i < deepest && text.includes('%'); i++) {
    text = text.replace(/%([0-9a-f]{2})/gi, (_escape, byte: string) => String.fromCharCode(parseInt(byte, 16)))
  }
  return text
}
