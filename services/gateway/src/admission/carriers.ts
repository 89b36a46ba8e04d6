import type { Carrier, Catalogue } from '@keygate/api-catalog'

const ofCatalogues = new WeakMap<Catalogue, Carrier[]>()

/** Every way in which some API of the catalogue takes keys, each once. */
export function carriersOf (catalogue: Catalogue): Carrier[] {
  let carriers = ofCatalogues.get(catalogue)
  if (carriers === undefined) ofCatalogues.set(catalogue, carriers = distinct(catalogue.apis.flatMap(({ carriers }) => carriers)))
  return carriers
}

/** Basic, and headers by their names, each once and in their order. */
export function distinct (carriers: readonly Carrier[]): Carrier[] {
  return [...new Map(carriers.map(carrier => [headerOf(carrier), carrier])).values()]
}

/** The name of the header that a carrier is, in lower case. */
export function headerOf (carrier: Carrier): string {
  return carrier.kind === 'basic' ? 'authorization' : carrier.name
}
