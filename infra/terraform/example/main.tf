# A bucket with locks of 30 days and its replica, an agent in a cluster, a pruner there, and a reader on an EC2 instance.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

provider "aws" {
  alias  = "replica"
  region = "eu-west-1"
}

module "haulout" {
  source = "../"

  providers = {
    aws         = aws
    aws.replica = aws.replica
  }

  bucket         = "example-backups"
  prefix         = "db1"
  replica_bucket = "example-backups-replica"
  lock_days      = 30

  # Cheaper where most packs are never read again, dearer where `check --read-data` or drills read them often.
  storage_classes = [
    { days = 30, class = "STANDARD_IA" },
    { days = 90, class = "GLACIER_IR" },
  ]

  oidc = {
    provider_arn = "arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
    issuer       = "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
  }

  trusted_service_accounts = {
    agent  = ["databases:db1-haulout-agent"]
    pruner = ["databases:db1-haulout-pruner"]
    reader = ["databases:db1-haulout-reader"]
  }

  trusted_services = {
    reader = ["ec2.amazonaws.com"]
  }

  tags = { Name = "haulout" }
}

output "haulout" {
  value = module.haulout
}
