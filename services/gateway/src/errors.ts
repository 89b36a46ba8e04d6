/**
 * Every refusal of the gateway: what it answers and what it says.
 *
 * `invalid_credentials` is one answer for an unknown project, no key, a wrong secret and another project's path, so that
 * guessing learns nothing; `key_disabled`, `key_expired` and `secret_retired` are told only to one who has the right secret.
 */
export const refusals = {
  ambiguous_credentials: { status: 400, detail: 'Send the key once: either Basic or one header, not both and none twice.' },
  invalid_project_id: { status: 400, detail: 'The project in the path is not a UUID.' },
  missing_credentials: { status: 401, detail: 'This operation needs an API key: send Basic projectId:secret, or the header that the API\'s document names.' },
  key_in_query: { status: 400, detail: 'A key in the path or query ends in logs and histories: send it as Basic or as the header that the API\'s document names.' },
  key_in_header: { status: 400, detail: 'A key stands in a header that takes none here, and would reach the API: send it as Basic or as the header that the API\'s document names.' },
  invalid_credentials: { status: 401, detail: 'The credentials are not valid here.' },
  bearer_missing: { status: 401, detail: 'This operation needs a bearer token beside the key.' },
  key_disabled: { status: 401, detail: 'This key is disabled. Its project can enable it again.' },
  key_expired: { status: 401, detail: 'This key has expired.' },
  secret_retired: { status: 401, detail: 'This secret was replaced and its time of grace is over: use the new one.' },
  host_not_allowed: { status: 403, detail: 'This key may not be used from this address.' },
  operation_not_open: { status: 403, detail: 'This operation is not open to API keys.' },
  carrier_not_offered: { status: 403, detail: 'This operation does not take a key in this way: see its security in the API\'s document.' },
  scope_missing: { status: 403, detail: 'This key does not have the scope of this operation.' },
  scopes_too_long: { status: 403, detail: 'The names of this key\'s scopes are longer than a header may be: give it fewer scopes, or all of them.' },
  not_found: { status: 404, detail: 'There is no such operation. Check the method and the path against the API\'s document.' },
  request_timeout: { status: 408, detail: 'The next part of the request\'s body did not come in time.' },
  limited: { status: 429, detail: 'The limit is used up. Retry-After says when the next request can pass.' },
  too_many_refusals: { status: 429, detail: 'Too many refused requests from this address.' },
  too_many_look_ups: { status: 503, detail: 'Too many keys that nobody knows come from this address. Try again later.' },
  store_unavailable: { status: 503, detail: 'The request could not be counted, so it was not admitted. Try again.' },
  key_service_unavailable: { status: 503, detail: 'The key could not be checked. Try again.' },
  unsettled: { status: 503, detail: 'The key is being changed right now. Try again.' },
  version_ahead: { status: 503, detail: 'The key\'s state has to be settled by the operator of this service.' },
  overloaded: { status: 503, detail: 'This gateway has more to do than it can. Try again.' },
  upstream_busy: { status: 503, detail: 'The API behind this gateway has as many requests under way as it may have. Try again.' },
  upstream_unreachable: { status: 502, detail: 'The API behind this gateway did not give an answer.' },
  upstream_closed: { status: 502, detail: 'The API behind this gateway closed the connection before it had read the whole body: it may be too large for it.' },
  upstream_malformed: { status: 502, detail: 'The API behind this gateway answered something that is not HTTP.' },
  upstream_timeout: { status: 504, detail: 'The API behind this gateway did not answer in time.' }
} as const

export type RefusalCode = keyof typeof refusals
