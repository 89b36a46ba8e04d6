/** Where a page ended; what it is made of is for whoever reads the next one. */
export interface Page<Row, Position> { rows: Row[], next: Position | undefined }

/**
 * All rows of a list that is read in pages by keyset: one page in memory, one statement each, and no transaction that stays open while a
 * client is slow.
 *
 * @param read the page after a position; undefined: the first one. A page without `next` is the last.
 */
export async function * rowsOfPages<Row, Position> (read: (after: Position | undefined) => Promise<Page<Row, Position>>): AsyncGenerator<Row, void> {
  let after: Position | undefined
  do {
    const { rows, next } = await read(after)
    yield * rows
    after = next
  } while (after !== undefined)
}
