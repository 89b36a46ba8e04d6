ALTER TABLE "service_tokens" ADD COLUMN "parent_id" text;--> statement-breakpoint
ALTER TABLE "users" ADD COLUMN "vouched_by" text;--> statement-breakpoint
ALTER TABLE "service_tokens" ADD CONSTRAINT "service_tokens_parent" FOREIGN KEY ("parent_id") REFERENCES "public"."service_tokens"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "idempotency_keys_by_key" ON "idempotency_keys" USING btree ("project_id","key_id") WHERE secret_ciphertext IS NOT NULL;--> statement-breakpoint
CREATE INDEX "service_tokens_by_parent" ON "service_tokens" USING btree ("parent_id");