import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { Catalogue } from '@keygate/api-catalog'
import { CatalogueView, SearchCatalogue } from './schemas.ts'
import { viewCatalogue } from './view.ts'

/** What keys can be allowed, and under which limits they are counted unless somebody says otherwise. */
export const catalogueRoutes: FastifyPluginAsyncTypebox<{ catalogue: Catalogue }> = async (app, { catalogue }) => {
  app.get('/catalogue', {
    config: { permission: 'catalogue:read', problems: [422] },
    schema: { tags: ['catalogue'], operationId: 'getCatalogue', summary: 'APIs with their scopes, operations and limits', querystring: SearchCatalogue, response: { 200: CatalogueView } }
  }, async request => viewCatalogue(catalogue, request.query.search))
}
