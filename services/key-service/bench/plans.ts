/** A node of a plan that reads a table, or an index of one. */
export interface Scan { node: string, table: string, index?: string }

/** What EXPLAIN (FORMAT JSON) says of a plan, as far as it is read here. */
export interface PlanNode { 'Node Type': string, 'Relation Name'?: string, 'Index Name'?: string, Plans?: PlanNode[] }

/** All scans of a plan. Of a bitmap, its indexes are told with the table that it is of. */
export function scansOf (plan: PlanNode, bitmapOf = ''): Scan[] {
  const { 'Node Type': node, 'Relation Name': table = bitmapOf, 'Index Name': index, Plans: plans = [] } = plan
  const below = plans.flatMap(child => scansOf(child, node.startsWith('Bitmap') ? table : ''))
  if (!node.endsWith('Scan') || table === '') return below
  return [{ node, table, ...index !== undefined && { index } }, ...below]
}

export function describeScan ({ node, table, index }: Scan): string {
  return `${node} ${index ?? table}`
}

/** The plans that auto_explain (`log_format = json`) has put into PostgreSQL's log, in the order of the statements. */
export function plansIn (log: string): PlanNode[] {
  // An entry's further lines begin with a tab; the next entry's first does not.
  return [...log.matchAll(/ LOG: {2}duration: [\d.]+ ms {2}plan:\n((?:\t.*\n)+)/g)].map(([, json = '']) => (JSON.parse(json) as { Plan: PlanNode }).Plan)
}
