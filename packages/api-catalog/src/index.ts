export type { Api, Carrier, Catalogue, Operation, Policy, Requirement } from './catalogue.ts'
export { CatalogueError } from './fault.ts'
export { loadCatalogue, type LoadOptions } from './load.ts'
export { parsePolicies } from './policies.ts'
