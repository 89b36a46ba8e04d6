import { CatalogueError, type Api, type Catalogue } from '@keygate/api-catalog'
import type { PublishedTexts } from '../docs/published-texts.ts'
import { loadApart, type LoadApartOptions } from './load-apart.ts'
import { loadHere, type LoadedCatalogue } from './loaded-catalogue.ts'
import { RoutingTable } from './table.ts'

export interface LiveCatalogueOptions {
  /** Path of `apis.yaml`. */
  file: string
  /** What is wrong with a catalogue that the files cannot show, a line each. */
  check?: (catalogue: Catalogue) => string[]
  /** What the reading of a new catalogue may take. */
  reader?: LoadApartOptions
}

/**
 * The catalogue that requests are judged by, and how it becomes another one: whole or not at all. A request goes on with the table
 * that it was matched with.
 */
export class LiveCatalogue {
  readonly #options: LiveCatalogueOptions
  /** Of every API that a request may still be for. */
  readonly #published = new WeakMap<Api, PublishedTexts>()
  #table: RoutingTable
  /** What is being read, and what will be when that has ended. */
  #current: Promise<unknown> = Promise.resolve()
  #next: Promise<RoutingTable> | undefined

  constructor (loaded: LoadedCatalogue, options: LiveCatalogueOptions) {
    this.#options = options
    this.#check(loaded)
    this.#table = new RoutingTable(loaded.catalogue)
    this.#keep(loaded)
  }

  /** Reads it in this process, which answers nobody yet. @throws {CatalogueError} with all faults at once. */
  static async open (options: LiveCatalogueOptions): Promise<LiveCatalogue> {
    return new LiveCatalogue(await loadHere(options.file), options)
  }

  get table (): RoutingTable { return this.#table }

  /** What is told of an API, also of one that is not in the table any more. @throws {Error} for one that never was. */
  textsOf (api: Api): PublishedTexts {
    const texts = this.#published.get(api)
    if (texts === undefined) throw new Error('this API is not of this catalogue')
    return texts
  }

  /**
   * Reads the files anew, while requests are answered. One reading goes on at a time, and all who ask during it share the next.
   *
   * @throws {CatalogueError} @throws {Error} the old table stays.
   */
  reload (): Promise<RoutingTable> {
    if (this.#next !== undefined) return this.#next
    const next = this.#current.then(async () => {
      this.#next = undefined
      const loaded = await loadApart(this.#options.file, this.#options.reader)
      this.#check(loaded)
      const table = await RoutingTable.inSlices(loaded.catalogue)
      this.#keep(loaded)
      this.#table = table
      return this.#table
    })
    this.#next = next
    this.#current = next.catch(() => {})
    return next
  }

  #check ({ catalogue }: LoadedCatalogue): void {
    const faults = this.#options.check?.(catalogue) ?? []
    if (faults.length > 0) throw new CatalogueError(this.#options.file, faults)
  }

  #keep ({ catalogue, published }: LoadedCatalogue): void {
    for (const [i, api] of catalogue.apis.entries()) this.#published.set(api, published[i] as PublishedTexts)
  }
}
