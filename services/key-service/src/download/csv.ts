export type Cell = string | number | boolean | null

/** Programs for tables take what begins so for a formula, also after blanks and in the wide forms of East Asian keyboards. */
const formula = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/

/**
 * One line of CSV (RFC 4180), its line break included. Null is an empty field.
 *
 * A text that a table program would run as a formula gets an apostrophe in front, as OWASP advises (CSV injection): a path or a User-Agent
 * is chosen by whoever calls. Numbers are ours and stay as they are.
 */
export function csvLine (cells: readonly Cell[]): string {
  return `${cells.map(csvCell).join(',')}\r\n`
}

function csvCell (cell: Cell): string {
  if (cell === null) return ''
  if (typeof cell !== 'string') return String(cell)
  const text = formula.test(cell) ? `'${cell}` : cell
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
