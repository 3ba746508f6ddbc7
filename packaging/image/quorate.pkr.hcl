# The machine image: a distribution's own, with all that a node needs (provision.sh).
#
#   packer init packaging/image/quorate.pkr.hcl
#   packer build -var region=eu-west-1 -var package=target/package/quorate_0.1.0-1_amd64.deb packaging/image/quorate.pkr.hcl
#
# It takes about ten minutes and costs the instance for as long. docs/first-cluster.md goes on from here.

packer {
  required_version = ">= 1.9.0"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0, < 2.0.0"
    }
  }
}

variable "region" {
  type        = string
  description = "Where the image is made."
}

variable "package" {
  type        = string
  description = "quorate's package, as `make package` leaves it: a .deb for Debian, a .rpm for Amazon Linux."
}

variable "distribution" {
  type        = string
  default     = "debian-12"
  description = "What the image is made from: debian-12 or amazon-linux-2023."
  validation {
    condition     = contains(["debian-12", "amazon-linux-2023"], var.distribution)
    error_message = "The distribution is debian-12 or amazon-linux-2023."
  }
}

variable "architecture" {
  type        = string
  default     = "x86_64"
  description = "x86_64 or arm64; the package's own."
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture is x86_64 or arm64."
  }
}

variable "subnet_id" {
  type        = string
  default     = ""
  description = "Where the machine is that the image is made on; the default VPC's when empty."
}

variable "kms_key_id" {
  type        = string
  default     = ""
  description = "The key that encrypts the image; the account's EBS key when empty."
}

locals {
  sources = {
    # Debian's own account.
    "debian-12" = {
      owner = "136693071363"
      name  = "debian-12-${var.architecture == "x86_64" ? "amd64" : "arm64"}-*"
      user  = "admin"
    }
    "amazon-linux-2023" = {
      owner = "amazon"
      name  = "al2023-ami-2023.*-kernel-6.*-${var.architecture}"
      user  = "ec2-user"
    }
  }
  source  = local.sources[var.distribution]
  made_at = formatdate("YYYYMMDD-hhmm", timestamp())
  # A package is given to provision.sh by its own ending.
  package = "/tmp/quorate.${element(split(".", var.package), length(split(".", var.package)) - 1)}"
}

source "amazon-ebs" "quorate" {
  region        = var.region
  subnet_id     = var.subnet_id
  instance_type = var.architecture == "x86_64" ? "m7i.large" : "m7g.large"
  ssh_username  = local.source.user

  source_ami_filter {
    owners      = [local.source.owner]
    most_recent = true
    filters = {
      name                = local.source.name
      architecture        = var.architecture
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }

  ami_name        = "quorate-${var.distribution}-${var.architecture}-${local.made_at}"
  ami_description = "A node of a cluster that quorate runs"
  encrypt_boot    = true
  kms_key_id      = var.kms_key_id
  # Machines of the image take the metadata service's version 2 alone, whatever their launch template says.
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 20
    volume_type           = "gp3"
    delete_on_termination = true
  }

  tags = {
    Name                 = "quorate"
    "quorate:package"    = basename(var.package)
    "quorate:source-ami" = "{{ .SourceAMI }}"
  }
}

build {
  sources = ["source.amazon-ebs.quorate"]

  # cloud-init has set the package manager up when it is done; it may end with 2, which is a warning.
  provisioner "shell" {
    inline           = ["cloud-init status --wait || test $? = 2"]
    valid_exit_codes = [0]
  }

  provisioner "file" {
    source      = var.package
    destination = local.package
  }

  provisioner "file" {
    sources     = ["${path.root}/provision.sh", "${path.root}/versions.sh"]
    destination = "/tmp/"
  }

  provisioner "shell" {
    inline = [
      "sudo sh /tmp/provision.sh ${local.package}",
      "sudo rm -f /tmp/provision.sh /tmp/versions.sh ${local.package}",
      "sudo sync",
    ]
  }

  post-processor "manifest" {
    output = "${path.root}/image.json"
  }
}
