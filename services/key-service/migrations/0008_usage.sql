CREATE TABLE "usage_boots" (
	"boot_id" text PRIMARY KEY,
	"replica" text NOT NULL,
	"first_at" timestamp (3) with time zone NOT NULL,
	"last_at" timestamp (3) with time zone NOT NULL,
	"seen" int8multirange NOT NULL DEFAULT '{}',
	"settled_at" timestamp (3) with time zone
);--> statement-breakpoint
CREATE INDEX "usage_boots_unsettled" ON "usage_boots" ("last_at") WHERE settled_at IS NULL;--> statement-breakpoint
CREATE TABLE "usage_lines" (
	"boot_id" text NOT NULL,
	"project_id" uuid NOT NULL,
	"hour" timestamp (3) with time zone NOT NULL,
	"admitted" bigint NOT NULL DEFAULT 0,
	"finished" bigint NOT NULL DEFAULT 0,
	"stored" bigint NOT NULL DEFAULT 0,
	"unanswered" bigint NOT NULL DEFAULT 0,
	"tail" bigint NOT NULL DEFAULT 0,
	PRIMARY KEY ("boot_id", "project_id", "hour")
) WITH (fillfactor = 70);--> statement-breakpoint
CREATE INDEX "usage_lines_by_project" ON "usage_lines" ("project_id", "hour");--> statement-breakpoint
CREATE TABLE "usage_incarnations" (
	"project_id" uuid NOT NULL,
	"incarnation" text NOT NULL,
	"first_at" timestamp (3) with time zone NOT NULL,
	PRIMARY KEY ("project_id", "incarnation")
);--> statement-breakpoint
CREATE TABLE "usage_minutes" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"api" text NOT NULL,
	"operation" text NOT NULL,
	"scope" text NOT NULL,
	"admitted" bigint NOT NULL,
	"limited" bigint NOT NULL,
	"refused" bigint NOT NULL,
	"upstream_errors" bigint NOT NULL,
	"admitted_locally" bigint NOT NULL,
	PRIMARY KEY ("project_id", "key_id", "at", "api", "operation", "scope")
) PARTITION BY RANGE ("at");--> statement-breakpoint
CREATE TABLE "usage_hours" (LIKE "usage_minutes" INCLUDING ALL) PARTITION BY RANGE ("at");--> statement-breakpoint
CREATE TABLE "usage_days" (LIKE "usage_minutes" INCLUDING ALL) PARTITION BY RANGE ("at");--> statement-breakpoint
-- For all keys of a short time, such as the top keys of 30 days of a year. Rows of one time lie together, and equal entries are folded, so it is small.
CREATE INDEX "usage_hours_by_time" ON "usage_hours" ("project_id", "at");--> statement-breakpoint
CREATE INDEX "usage_days_by_time" ON "usage_days" ("project_id", "at");--> statement-breakpoint
-- Whose requests were limited of late. Only minutes that have such are in it, so a counted request touches no further index.
CREATE INDEX "usage_minutes_limited" ON "usage_minutes" ("project_id", "at", "key_id") WHERE limited > 0 AND key_id <> '*';--> statement-breakpoint
CREATE INDEX "secrets_retiring" ON "secrets" USING btree ("project_id", "key_id") WHERE state = 'retiring';--> statement-breakpoint
CREATE TABLE "usage_callers" (
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"address" text NOT NULL,
	"client" text NOT NULL,
	"secret_id" text NOT NULL,
	"hour" timestamp (3) with time zone NOT NULL,
	"count" bigint NOT NULL,
	"last_seen" timestamp (3) with time zone NOT NULL,
	PRIMARY KEY ("project_id", "key_id", "address", "client", "secret_id", "hour")
) WITH (fillfactor = 70);--> statement-breakpoint
CREATE INDEX "usage_callers_by_hour" ON "usage_callers" ("hour");--> statement-breakpoint
CREATE TABLE "request_log" (
	"id" bigint GENERATED ALWAYS AS IDENTITY,
	"at" timestamp (3) with time zone NOT NULL,
	"project_id" uuid NOT NULL,
	"key_id" text NOT NULL,
	"secret_id" text NOT NULL,
	"request_id" text NOT NULL,
	"api" text NOT NULL,
	"operation" text NOT NULL,
	"method" text NOT NULL,
	"scope" text NOT NULL,
	"outcome" text NOT NULL,
	"code" text,
	"status" integer NOT NULL,
	"ms" integer NOT NULL,
	"bytes" bigint NOT NULL,
	"address" text NOT NULL,
	"client" text NOT NULL,
	"replica" text NOT NULL,
	PRIMARY KEY ("at", "id")
) PARTITION BY RANGE ("at");--> statement-breakpoint
CREATE INDEX "request_log_by_key" ON "request_log" ("project_id", "key_id", "at", "id");--> statement-breakpoint
CREATE INDEX "request_log_by_project" ON "request_log" ("project_id", "at", "id");
