import t from 'tap'
import { startStores } from './harness.ts'
import { storeContract } from './store-contract.ts'

const { stores, close } = await startStores()
t.teardown(close)

for (const store of stores) storeContract(t, store)
