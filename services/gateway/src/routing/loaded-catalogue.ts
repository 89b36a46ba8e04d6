import { loadCatalogue, type Api, type Catalogue } from '@keygate/api-catalog'
import { publishedTexts, type PublishedTexts } from '../docs/published-texts.ts'

/** A catalogue as the gateway keeps it. */
export interface LoadedCatalogue {
  /** Its APIs' documents are empty: what is told of them is in `published`, and nothing else is made of them. */
  catalogue: Catalogue
  /** Of each API of the catalogue, in its order. */
  published: PublishedTexts[]
}

/** Reads a catalogue in this process, which does nothing else meanwhile. @throws {CatalogueError} with all faults at once. */
export async function loadHere (file: string): Promise<LoadedCatalogue> {
  const { apis } = await loadCatalogue(file)
  return { catalogue: Object.freeze({ apis: Object.freeze(apis.map(withoutDocument)) as Api[] }), published: apis.map(publishedTexts) }
}

function withoutDocument (api: Api): Api {
  return Object.freeze({ ...api, document: Object.freeze({}) })
}
