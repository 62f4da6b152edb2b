variable "bucket" {
  description = "Name of the bucket that holds the repositories."
  type        = string
}

variable "prefix" {
  description = "What follows the bucket in the repository's URL: s3://BUCKET/PREFIX. That of a fleet holds many repositories."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_]([A-Za-z0-9._/-]*[A-Za-z0-9_])?$", var.prefix))
    error_message = "The prefix has letters, digits, '.', '_', '-' and '/', and neither begins nor ends with a slash."
  }
}

variable "replica_bucket" {
  description = "Name of a second bucket, in the region of provider aws.replica, that has the repository again; null for none."
  type        = string
  default     = null
}

variable "replica_by" {
  description = "What keeps the second bucket in step: \"replication\", by the store itself, or \"copy\", by `haulout copy` as the role copier."
  type        = string
  default     = "replication"

  validation {
    condition     = contains(["replication", "copy"], var.replica_by)
    error_message = "The second bucket is kept in step by replication or by copy."
  }

  validation {
    condition     = var.replica_by == "replication" || var.replica_bucket != null
    error_message = "A copy needs a second bucket: set replica_bucket, too."
  }
}

variable "lock_days" {
  description = "The days of `haulout init --lock`; 0 where nothing is locked. The buckets can lock objects in any case."
  type        = number
  default     = 30

  validation {
    condition     = var.lock_days >= 0 && var.lock_days <= 36500 && floor(var.lock_days) == var.lock_days
    error_message = "Days are a whole number from 0 to 36500."
  }
}

variable "lock_mode" {
  description = "The mode of `haulout init --lock-mode`, in capitals."
  type        = string
  default     = "COMPLIANCE"

  validation {
    condition     = contains(["COMPLIANCE", "GOVERNANCE"], var.lock_mode)
    error_message = "The mode is COMPLIANCE or GOVERNANCE."
  }
}

variable "storage_classes" {
  description = "Storage classes into which packs move, so many days after they were stored, in ascending order."
  type = list(object({
    days  = number
    class = string
  }))
  default = []

  # From the archive classes nothing can be read before it is thawed: backups, checks and restores would all fail.
  validation {
    condition = alltrue([
      for step in var.storage_classes : contains(["STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"], step.class)
    ])
    error_message = "Only classes that can be read at once: STANDARD_IA, ONEZONE_IA, GLACIER_IR."
  }
}

variable "trusted_service_accounts" {
  description = "Per role, the Kubernetes service accounts that may take it (IRSA): NAMESPACE:NAME."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for role in keys(var.trusted_service_accounts) : contains(["agent", "copier", "pruner", "reader"], role)])
    error_message = "The roles are agent, copier, pruner and reader."
  }

  validation {
    condition     = !contains(keys(var.trusted_service_accounts), "copier") || var.replica_by == "copy"
    error_message = "A copier has something to do where replica_by is copy."
  }

  validation {
    condition     = length(var.trusted_service_accounts) == 0 || var.oidc != null
    error_message = "Service accounts are trusted by way of an OIDC provider: set oidc, too."
  }
}

variable "oidc" {
  description = "The cluster's OIDC provider, for trusted_service_accounts: its ARN, and its issuer without https://."
  type = object({
    provider_arn = string
    issuer       = string
  })
  default = null
}

variable "trusted_services" {
  description = "Per role, the AWS services that may take it, such as ec2.amazonaws.com. For ec2 there is an instance profile, too."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for role in keys(var.trusted_services) : contains(["agent", "copier", "pruner", "reader"], role)])
    error_message = "The roles are agent, copier, pruner and reader."
  }

  validation {
    condition     = !contains(keys(var.trusted_services), "copier") || var.replica_by == "copy"
    error_message = "A copier has something to do where replica_by is copy."
  }
}

variable "trusted_principals" {
  description = "Per role, the ARNs of IAM principals that may take it."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for role in keys(var.trusted_principals) : contains(["agent", "copier", "pruner", "reader"], role)])
    error_message = "The roles are agent, copier, pruner and reader."
  }

  validation {
    condition     = !contains(keys(var.trusted_principals), "copier") || var.replica_by == "copy"
    error_message = "A copier has something to do where replica_by is copy."
  }
}

variable "tags" {
  description = "Tags of all that is made."
  type        = map(string)
  default     = {}
}
