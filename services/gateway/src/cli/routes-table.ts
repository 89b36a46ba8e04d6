import { loadCatalogue, printRoutes } from '@keygate/api-catalog'
import type { Environment } from '@keygate/service-kit'
import { FaultsError } from './faults.ts'

/** The table that a gateway with this catalogue enforces. It reads `KEYGATE_APIS` alone. @throws {CatalogueError} @throws {FaultsError} */
export async function routesTable ({ KEYGATE_APIS: file }: Environment): Promise<string> {
  if (file === undefined || file === '') throw new FaultsError(['KEYGATE_APIS is missing: path of apis.yaml, the catalogue of APIs behind this gateway'])
  return printRoutes(await loadCatalogue(file))
}
