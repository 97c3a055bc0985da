with products as (
    select * from {{ ref('stg_ecommerce__products') }}
),

final as (
    select
        sku,
        product_id,
        variant_id,
        inventory_item_id,
        gtin,
        product_name,
        category_name,
        brand_name,
        price_cents,
        cost_cents,
        weight_grams,
        updated_at
    from products
    where is_latest
)

select * from final
