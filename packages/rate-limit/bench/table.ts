/** A table for a terminal, which is Markdown too. */
export function table (head: string[], rows: Array<Array<string | number>>): string {
  const cells = [head, ...rows.map(row => row.map(cell => typeof cell === 'number' ? figure(cell) : cell))]
  const widths = head.map((_, i) => Math.max(...cells.map(row => (row[i] ?? '').length)))
  const line = (row: string[]): string => `| ${row.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)).join(' | ')} |`
  const rule = `|${widths.map((width, i) => i === 0 ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`).join('|')}|`
  const [top = [], ...body] = cells
  return [line(top), rule, ...body.map(line)].join('\n')
}

const figure = (n: number): string => n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(2)
