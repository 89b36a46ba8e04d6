-- Both are trusted: whoever owns the database may create them. For the search of keys (`keys_search`).
CREATE EXTENSION IF NOT EXISTS pg_trgm;
--> statement-breakpoint
CREATE EXTENSION IF NOT EXISTS btree_gin;
--> statement-breakpoint
CREATE TABLE "audit_chains" (
	"chain" text PRIMARY KEY NOT NULL,
	"seq" bigint NOT NULL,
	"hash" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"digest" text PRIMARY KEY NOT NULL,
	"fingerprint" text NOT NULL,
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"status" integer NOT NULL,
	"body" jsonb NOT NULL,
	"secret_ciphertext" text,
	"encryption_key_id" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "identities" (
	"provider" text NOT NULL,
	"subject" text NOT NULL,
	"user_id" text NOT NULL,
	CONSTRAINT "identities_provider_subject_pk" PRIMARY KEY("provider","subject")
);
--> statement-breakpoint
CREATE TABLE "key_logging" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"scope" text NOT NULL,
	"until" timestamp (3) with time zone,
	CONSTRAINT "key_logging_project_id_key_id_scope_pk" PRIMARY KEY("project_id","key_id","scope")
);
--> statement-breakpoint
CREATE TABLE "members" (
	"project_id" uuid NOT NULL,
	"user_id" text NOT NULL,
	"role" text NOT NULL,
	"added_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"added_by" text NOT NULL,
	CONSTRAINT "members_project_id_user_id_pk" PRIMARY KEY("project_id","user_id"),
	CONSTRAINT "members_role" CHECK ("members"."role" IN ('owner', 'manager', 'viewer'))
);
--> statement-breakpoint
CREATE TABLE "one_time_links" (
	"digest" text PRIMARY KEY NOT NULL,
	"user_id" text NOT NULL,
	"expires_at" timestamp (3) with time zone NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "operators" (
	"user_id" text PRIMARY KEY NOT NULL,
	"granted_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"granted_by" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "passwords" (
	"user_id" text PRIMARY KEY NOT NULL,
	"hash" text NOT NULL,
	"set_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "role_scopes" (
	"project_id" uuid NOT NULL,
	"role_id" text NOT NULL,
	"scope" text NOT NULL,
	CONSTRAINT "role_scopes_project_id_role_id_scope_pk" PRIMARY KEY("project_id","role_id","scope")
);
--> statement-breakpoint
CREATE TABLE "roles" (
	"project_id" uuid NOT NULL,
	"id" text NOT NULL,
	"name" text NOT NULL,
	"description" text,
	"version" bigint DEFAULT 1 NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_by" text NOT NULL,
	CONSTRAINT "roles_project_id_id_pk" PRIMARY KEY("project_id","id")
);
--> statement-breakpoint
CREATE TABLE "sessions" (
	"digest" text PRIMARY KEY NOT NULL,
	"user_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"authenticated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"last_seen_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "users" (
	"id" text PRIMARY KEY NOT NULL,
	"email" text NOT NULL,
	"name" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_by" text NOT NULL
);
--> statement-breakpoint
DROP INDEX "service_tokens_name";--> statement-breakpoint
DROP INDEX "keys_by_age";--> statement-breakpoint
DROP INDEX "keys_by_name";--> statement-breakpoint
ALTER TABLE "audit_events" ADD COLUMN "chain" text;--> statement-breakpoint
ALTER TABLE "audit_events" ADD COLUMN "seq" bigint;--> statement-breakpoint
ALTER TABLE "audit_events" ADD COLUMN "hash" text;--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "role_id" text;--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "logged_for_all" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "logged_for_all_until" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "sealed" boolean DEFAULT true NOT NULL;--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "last_used_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "keys" ADD COLUMN "search_text" text GENERATED ALWAYS AS (name || E'\x1f' || coalesce(description, '')) STORED;--> statement-breakpoint
ALTER TABLE "secrets" ADD COLUMN "pepper_id" text DEFAULT '1' NOT NULL;--> statement-breakpoint
ALTER TABLE "secrets" ADD COLUMN "ciphertext" text;--> statement-breakpoint
ALTER TABLE "secrets" ADD COLUMN "encryption_key_id" text;--> statement-breakpoint
ALTER TABLE "secrets" ADD COLUMN "retired_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "secrets" ADD COLUMN "last_used_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "service_tokens" ADD COLUMN "hint" text DEFAULT 'kgs_…' NOT NULL;--> statement-breakpoint
ALTER TABLE "service_tokens" ADD COLUMN "maker_id" text;--> statement-breakpoint
ALTER TABLE "service_tokens" ADD COLUMN "created_by" text DEFAULT 'the tokens file' NOT NULL;--> statement-breakpoint
ALTER TABLE "identities" ADD CONSTRAINT "identities_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "key_logging" ADD CONSTRAINT "key_logging_key" FOREIGN KEY ("project_id","key_id") REFERENCES "public"."keys"("project_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "members" ADD CONSTRAINT "members_project_id_projects_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."projects"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "members" ADD CONSTRAINT "members_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "one_time_links" ADD CONSTRAINT "one_time_links_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "operators" ADD CONSTRAINT "operators_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "passwords" ADD CONSTRAINT "passwords_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "role_scopes" ADD CONSTRAINT "role_scopes_role" FOREIGN KEY ("project_id","role_id") REFERENCES "public"."roles"("project_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "roles" ADD CONSTRAINT "roles_project_id_projects_id_fk" FOREIGN KEY ("project_id") REFERENCES "public"."projects"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "idempotency_keys_by_age" ON "idempotency_keys" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "identities_by_user" ON "identities" USING btree ("user_id");--> statement-breakpoint
CREATE INDEX "members_by_user" ON "members" USING btree ("user_id");--> statement-breakpoint
CREATE INDEX "one_time_links_by_user" ON "one_time_links" USING btree ("user_id");--> statement-breakpoint
CREATE UNIQUE INDEX "roles_name" ON "roles" USING btree ("project_id","name");--> statement-breakpoint
CREATE INDEX "sessions_by_user" ON "sessions" USING btree ("user_id");--> statement-breakpoint
CREATE UNIQUE INDEX "users_email" ON "users" USING btree ("email");--> statement-breakpoint
ALTER TABLE "keys" ADD CONSTRAINT "keys_role" FOREIGN KEY ("project_id","role_id") REFERENCES "public"."roles"("project_id","id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "audit_events_chain" ON "audit_events" USING btree ("chain","seq");--> statement-breakpoint
CREATE INDEX "keys_by_name_prefix" ON "keys" USING btree ("project_id",lower(name) text_pattern_ops) WHERE status <> 'deleted';--> statement-breakpoint
CREATE INDEX "keys_by_expiry" ON "keys" USING btree ("project_id","expires_at","id") WHERE status <> 'deleted';--> statement-breakpoint
CREATE INDEX "keys_by_use" ON "keys" USING btree ("project_id","last_used_at","id") WHERE status <> 'deleted';--> statement-breakpoint
CREATE INDEX "keys_by_role" ON "keys" USING btree ("project_id","role_id") WHERE role_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX "keys_search" ON "keys" USING gin ("project_id",search_text gin_trgm_ops) WHERE status <> 'deleted';--> statement-breakpoint
CREATE INDEX "secrets_by_encryption_key" ON "secrets" USING btree ("encryption_key_id") WHERE encryption_key_id IS NOT NULL;--> statement-breakpoint
CREATE INDEX "secrets_by_pepper" ON "secrets" USING btree ("pepper_id");--> statement-breakpoint
CREATE UNIQUE INDEX "service_tokens_file_name" ON "service_tokens" USING btree ("name") WHERE from_file;--> statement-breakpoint
CREATE INDEX "service_tokens_by_age" ON "service_tokens" USING btree ("created_at","id");--> statement-breakpoint
CREATE INDEX "service_tokens_by_maker" ON "service_tokens" USING btree ("maker_id");--> statement-breakpoint
CREATE INDEX "keys_by_age" ON "keys" USING btree ("project_id","created_at","id") WHERE status <> 'deleted';--> statement-breakpoint
CREATE INDEX "keys_by_name" ON "keys" USING btree ("project_id","name","id") WHERE status <> 'deleted';